"""The settings of one start as a TOML file that says where each comes from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from rllm.settings.model import Subject
from rllm.settings.option import Setting
from rllm.settings.settings import SUBJECTS, Settings

IN_FILE = tuple(sorted(SUBJECTS, key=lambda part: bool(part.table)))
"""In the order of a TOML file: what stands above all tables comes first."""


def printable(settings: Settings, known: Mapping[str, tuple[object, str]] | None = None) -> str:
    """What would apply, secrets masked, each value with where it comes from.

    Args:
        known: values for what nobody has chosen, with their origins, by the names of the options.
    """
    found = {
        name: (value, settings.origins.get(name, "default")) for name, value in settings.values().items()
    }
    found |= known or {}
    hidden = {"gguf", "alias"} if settings.tables else set()
    lines: list[str] = []
    for part in IN_FILE:
        shown = [setting for setting in part.settings if setting.name not in hidden]
        lines += _table(part, (_line(setting, *found[setting.name]) for setting in shown))
    for own in settings.own:
        lines += ["", "[[models]]", *(f"{name} = {toml(value)}" for name, value in own.items())]
    return "\n".join(lines).lstrip("\n") + "\n"


def _table(part: Subject, lines: Iterable[str]) -> list[str]:
    return ["", f"[{part.table}]", *lines] if part.table else list(lines)


def _line(setting: Setting, value: object, origin: str) -> str:
    name = key_of(setting)
    return f"# {name} is not set" if value is None else f"{f'{name} = {toml(value)}':<40} # {origin}"


def key_of(setting: Setting) -> str:
    """Within its table."""
    return setting.field if setting.table else setting.name


def toml(value: object) -> str:
    """Of the kinds that settings have."""
    return json.dumps(_simple(value))


def _simple(value: object) -> Any:
    if isinstance(value, tuple | list):
        return [_simple(item) for item in value]
    if isinstance(value, SecretStr | Path) or not isinstance(value, str | int | float):
        return str(value)
    return value
