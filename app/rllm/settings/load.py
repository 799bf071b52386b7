"""Makes `Settings`: command line before RLLM_* environment before TOML file before defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from rllm.settings.model import MODEL_SUBJECTS, ModelSettings, Subject
from rllm.settings.settings import SUBJECTS, Settings
from rllm.settings.sources import (
    ConfigError,
    File,
    Values,
    empty_variables,
    from_command_line,
    from_environment,
    from_file,
)

_MODELS = SUBJECTS[0]


def load(cli: Mapping[str, Any], path: Path | None = None, *, need_model: bool = True) -> Settings:
    """Merge and check. ``cli`` holds only what was given on the command line, by the names of the options.

    Without ``need_model`` the settings may name none: they can be shown, and not served.

    Raises:
        ConfigError: one line that names every wrong setting.
    """
    file = from_file(path) if path else File()
    chosen = {**from_environment(os.environ), **from_command_line(cli)}
    if "gguf" in chosen:  # naming models replaces those of the file
        file.models, file.values = [], _without(file.values, "gguf", "alias")
    values = {**file.values, **chosen}
    settings = _assembled(values, file)
    if need_model and not settings.served():
        raise ConfigError("no model to serve: give MODEL.gguf, RLLM_GGUF, or [[models]] in a TOML file")
    _check_empty(settings)
    return settings


def _without(values: Values, *names: str) -> Values:
    return {name: given for name, given in values.items() if name not in names}


def _assembled(values: Values, file: File) -> Settings:
    problems = list(file.problems)
    structs = {part.field: _struct(part, values, problems) for part in SUBJECTS}
    tables = [_model_fields(values, own, problems) for own in file.models]
    if problems:
        raise ConfigError("; ".join(dict.fromkeys(problems)))
    try:
        return Settings(
            **structs,
            tables=tuple(ModelSettings(**table) for table in tables),
            origins={name: given.origin for name, given in values.items()},
            own=tuple({name: given.value for name, given in own.items()} for own in file.models),
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _model_fields(common: Values, own: Values, problems: list[str]) -> dict[str, Any]:
    """The arguments of one `ModelSettings`. A table names one file, which is not in a list there."""
    found = {part.field: _struct(part, {**common, **own}, problems) for part in MODEL_SUBJECTS}
    models = _struct(_MODELS, own, problems)
    if models is not None and len(models.gguf) != 1:
        problems.append("every table of [[models]] needs one gguf")
    elif models is not None:
        found |= {"gguf": models.gguf[0], "alias": models.alias}
    return found


def _struct(part: Subject, values: Values, problems: list[str]) -> Any:
    """The checked struct of one subject; None where something was wrong, which ``problems`` then says."""
    given = {setting.field: values[setting.name] for setting in part.settings if setting.name in values}
    try:
        return _adapter(part.struct).validate_python({name: item.value for name, item in given.items()})
    except ValidationError as error:
        secrets = {setting.field for setting in part.settings if setting.is_secret}
        for detail in error.errors(include_url=False):
            name = str(detail["loc"][0])
            problems.append(_explained(detail, given[name].called, is_secret=name in secrets))
        return None


@cache
def _adapter(struct: type) -> TypeAdapter[Any]:
    return TypeAdapter(struct)


def _explained(detail: ErrorDetails, called: str, *, is_secret: bool) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    if is_secret or detail["type"] == "value_error":
        return f"{called}: {message}"
    return f"{called}: {message} (got {detail['input']!r})"


def _check_empty(settings: Settings) -> None:
    """A variable that is set to nothing must not open the server to other machines."""
    chosen = {"RLLM_API_KEY": settings.access.api_key, "RLLM_KEYS_FILE": settings.access.keys_file}
    empty = [name for name in empty_variables(os.environ) if not chosen[name]]
    if empty and not settings.is_loopback:
        raise ConfigError(
            f"{empty[0]} is empty, and host {' '.join(settings.listening_hosts)} is open to other machines"
        )
