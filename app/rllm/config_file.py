"""The TOML side of the settings: reading a file, writing one back, and naming what is wrong in it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

_SECRETS = frozenset({"api_key", "ssl_keyfile_password"})


def read(path: Path) -> dict[str, Any]:
    """The file's keys. Relative model paths count from the file's folder, wherever the server is started."""
    with path.open("rb") as file:
        values = tomllib.load(file)
    for table in [values, *_tables(values.get("models"))]:
        if "gguf" in table:
            table["gguf"] = _anchor(path.parent, table["gguf"])
    return values


def _tables(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _anchor(folder: Path, value: object) -> object:
    if isinstance(value, str):
        return str(folder / Path(value).expanduser())
    return [_anchor(folder, item) for item in value] if isinstance(value, list) else value


def dump(values: Mapping[str, Any], origins: Mapping[str, str], tables: Iterable[Mapping[str, Any]]) -> str:
    lines = []
    for name, value in values.items():
        line = f"# {name} is not set" if value is None else f"{name} = {json.dumps(value)}"
        lines.append(f"{line:<40} # {origins[name]}" if name in origins else line)
    for table in tables:
        lines += ["", "[[models]]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
    return "\n".join(lines) + "\n"


def explain(error: ValidationError, origins: Mapping[str, str], known: Iterable[str]) -> str:
    """One line for all that is wrong."""
    return "; ".join(_explain_one(detail, origins, list(known)) for detail in error.errors(include_url=False))


def _explain_one(detail: ErrorDetails, origins: Mapping[str, str], known: list[str]) -> str:
    path = [part for part in detail["loc"] if isinstance(part, str)]
    message = detail["msg"].removeprefix("Value error, ")
    if not path:
        return message
    field = path[0]
    origin = origins.get(field, "")
    if origin == "command line":
        name = "--" + field.replace("_", "-")
    elif origin.startswith("RLLM_"):
        name = origin
    else:
        name = f"{origin}: {'.'.join(path)}"
    if detail["type"] == "extra_forbidden":
        near = get_close_matches(path[-1], known, n=1)
        return f"{name}: unknown key" + (f", did you mean {near[0]!r}?" if near else "")
    if field in _SECRETS or detail["type"] in {"missing", "value_error"}:
        return f"{name}: {message}"
    return f"{name}: {message} (got {detail['input']!r})"
