"""The keys file: who may call, and how much. TOML, one ``[[keys]]`` table per caller:

    [[keys]]
    name = "search-team"
    sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    requests_per_min = 600
    tokens_per_min = 200000
    concurrency = 16
    priority = 0
    operator = false         # true: may see /metrics and the live state, which tell of all callers

The file holds digests only: ``printf %s "$KEY" | sha256sum`` makes one.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rllm.errors import StartError
from rllm.serving.limits import KeyLimits

_OF_NOTHING = frozenset(hashlib.sha256(text).digest() for text in (b"", b" ", b"\n", b"\r\n"))
_COUNTS = ("requests_per_min", "tokens_per_min", "concurrency")


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One caller, with the fields that the API's authorization looks at."""

    name: str
    digest: bytes = field(repr=False)
    limits: KeyLimits
    operator: bool = False
    """It may see what all callers do."""


def read_keys(path: Path) -> tuple[KeyEntry, ...]:
    """
    Raises:
        StartError: the file cannot be read or an entry is wrong. Never shows a digest.
    """
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise StartError(f"keys file {path}: {error.strerror}") from None
    except ValueError as error:
        raise StartError(f"keys file {path}: {error}") from None
    tables = values.pop("keys", [])
    if values or not isinstance(tables, list):
        raise StartError(f"keys file {path}: it may hold [[keys]] tables only")
    try:
        entries = tuple(_entry(table, index) for index, table in enumerate(tables))
    except ValueError as error:
        raise StartError(f"keys file {path}: {error}") from None
    if not entries:
        raise StartError(f"keys file {path}: it holds no key, and without one everybody would be let in")
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise StartError(f"keys file {path}: two keys are called {twice[0]!r}")
    _check_distinct(path, entries)
    return entries


def _check_distinct(path: Path, entries: Sequence[KeyEntry]) -> None:
    owners: dict[bytes, str] = {}
    for entry in entries:
        if (other := owners.setdefault(entry.digest, entry.name)) != entry.name:
            raise StartError(f"keys file {path}: {other!r} and {entry.name!r} have the same key")


def _entry(table: Any, index: int) -> KeyEntry:
    if not isinstance(table, dict):
        raise ValueError(f"keys[{index}] is no table")
    name = table.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= 64:
        raise ValueError(f"keys[{index}] needs a name of 1 to 64 characters")
    if not name.isprintable():
        raise ValueError(f"keys[{index}]: the name has control characters")
    if unknown := table.keys() - {"name", "sha256", "priority", "operator", *_COUNTS}:
        raise ValueError(f"key {name!r} has an unknown field {min(unknown)!r}")
    counts = {field_: _count(name, table, field_) for field_ in _COUNTS}
    priority = table.get("priority", 0)
    if type(priority) is not int or not -1000 <= priority <= 1000:
        raise ValueError(f"key {name!r}: priority must be a whole number from -1000 to 1000")
    operator = table.get("operator", False)
    if type(operator) is not bool:
        raise ValueError(f"key {name!r}: operator must be true or false")
    limits = KeyLimits(**counts, priority=priority)
    return KeyEntry(name, _digest(name, table.get("sha256")), limits, operator)


def _count(name: str, table: dict[str, Any], field_: str) -> int:
    value = table.get(field_, 0)
    if type(value) is not int or value < 0:
        raise ValueError(f"key {name!r}: {field_} must be a whole number, 0 for no limit")
    return value


def _digest(name: str, value: Any) -> bytes:
    try:
        digest = bytes.fromhex(value)
    except (TypeError, ValueError):
        digest = b""
    if len(digest) != 32:
        raise ValueError(f"key {name!r}: sha256 must be 64 hexadecimal digits")
    if digest in _OF_NOTHING:
        raise ValueError(f"key {name!r}: sha256 is that of an empty key; was a variable unset?")
    return digest
