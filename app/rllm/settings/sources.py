"""The places that settings come from: a TOML file, the environment, the command line.

Each gives what was said there, by the name of the option. A name that no setting has is refused.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from rllm.errors import StartError
from rllm.settings.option import ENV_PREFIX
from rllm.settings.settings import OF_MODEL, SETTINGS, SUBJECTS

_DECIDE = ("api_key", "keys_file")
"""Who gets in. An unset variable in a start script must be an error, never "no key"."""
_TABLES = {part.field: part.settings for part in SUBJECTS if part.field != "models"}
"""A subject without a table of its own may be written as one, too."""


class ConfigError(StartError):
    """A setting is wrong. The message names it the way the operator wrote it."""

    code = "config_error"


class Given(NamedTuple):
    """A value that somebody chose."""

    value: object
    origin: str
    """Where, in a word."""
    called: str
    """As an error names it."""


Values = dict[str, Given]
"""By the name of the option."""


@dataclass
class File:
    values: Values = field(default_factory=dict)
    models: list[Values] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def from_command_line(values: Mapping[str, Any]) -> Values:
    return {name: Given(value, "command line", SETTINGS[name].flag) for name, value in values.items()}


def from_environment(environ: Mapping[str, str]) -> Values:
    """An empty variable counts as unset."""
    return {
        name: Given(environ[setting.variable], setting.variable, setting.variable)
        for name, setting in SETTINGS.items()
        if environ.get(setting.variable)
    }


def secret_variables() -> list[str]:
    return [setting.variable for setting in SETTINGS.values() if setting.is_secret]


def unknown_variables(environ: Iterable[str]) -> list[str]:
    """RLLM_* variables that no setting reads: probably misspelt."""
    known = _variables()
    return sorted(name for name in environ if name.startswith(ENV_PREFIX) and name not in known)


def empty_variables(environ: Mapping[str, str]) -> list[str]:
    """Those of the environment that would decide who gets in, and are set to nothing."""
    return [variable for name in _DECIDE if environ.get(variable := SETTINGS[name].variable) == ""]


def nearest_variable(name: str) -> str:
    return nearest(name, _variables())


def _variables() -> set[str]:
    return {setting.variable for setting in SETTINGS.values()} | {ENV_PREFIX + "CONFIG"}


def from_file(path: Path) -> File:
    """Paths of models count from the file's folder, wherever the server is started.

    Raises:
        ConfigError: it cannot be read, or is no TOML.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"--config {path}: {error}") from None
    return _Reader(path).read(content)


class _Reader:
    """Turns the tables of one file into values."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = File()

    def read(self, content: dict[str, Any]) -> File:
        models = content.pop("models", [])
        self._file.values = self._values(content, SETTINGS, "")
        if not isinstance(models, list) or not all(isinstance(item, dict) for item in models):
            self._problem("models", "must be tables, each begun with [[models]]")
            return self._file
        known = OF_MODEL | {"gguf", "alias"}
        self._file.models = [self._values(item, known, "models.") for item in models]
        return self._file

    def _values(self, content: Mapping[str, Any], known: Collection[str], prefix: str) -> Values:
        """``known``: the names that may stand here, in a table of their subject or above all tables."""
        found: Values = {}
        for key, value in content.items():
            if isinstance(value, dict) and key in _TABLES:
                names = {s.field: s.name for s in _TABLES[key] if s.name in known}
                names |= {name: name for name in names.values()}
                for inner, item in value.items():
                    self._add(found, f"{prefix}{key}.{inner}", names.get(inner), names, item)
            else:
                self._add(found, prefix + key, key if key in known else None, [*known, *_TABLES], value)
        return found

    def _add(self, found: Values, key: str, name: str | None, known: Iterable[str], value: object) -> None:
        if name is None:
            last = key.rpartition(".")[2]
            self._problem(key, "unknown key" + did_you_mean(nearest(last, known)))
        elif name in found:
            self._problem(key, f"the same setting as {found[name].called.rpartition(' ')[2]}")
        else:
            anchored = _anchor(self._path.parent, value) if name == "gguf" else value
            found[name] = Given(anchored, str(self._path), f"{self._path}: {key}")

    def _problem(self, key: str, message: str) -> None:
        self._file.problems.append(f"{self._path}: {key}: {message}")


def _anchor(folder: Path, value: object) -> object:
    if isinstance(value, str):
        return str(folder / Path(value).expanduser())
    return [_anchor(folder, item) for item in value] if isinstance(value, list) else value


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant; empty if none is near."""
    return next(iter(get_close_matches(name, list(known), n=1)), "")


def did_you_mean(name: str) -> str:
    return f", did you mean {name!r}?" if name else ""
