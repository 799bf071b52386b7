"""One setting as users meet it: its names, its text, its type and its default.

A struct's fields are the settings. What the command line, the environment, a file and the pages say about one
is read off its field here, so nothing is declared twice.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, fields
from functools import cached_property
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import SecretStr

ENV_PREFIX = "RLLM_"


@dataclass(frozen=True, slots=True)
class Option:
    """The note that makes a field of a struct a setting: ``Annotated[int, Option("What it is.")]``."""

    text: str
    name: str = ""
    """Where it is not the field's: what the option, the variable and the key without a table are called."""
    flags: tuple[str, ...] = ()
    """Further spellings on the command line; llama-server's where it has the option."""
    unit: str = ""
    """Of the value, in a word: SECONDS, TOKENS, FILE."""
    default: str = ""
    """In words, where the default's value alone does not say what happens."""
    common: bool = False
    """``--help`` shows it; ``--help-all`` shows the others, too."""


@dataclass(frozen=True)
class Setting:
    """A field with its option."""

    option: Option
    field: str
    table: str
    """Of the TOML file. Empty: the key stands above all tables."""
    hint: Any
    """The field's type, notes included."""
    default: Any

    @property
    def name(self) -> str:
        return self.option.name or self.field

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENV_PREFIX + self.name.upper()

    @property
    def key(self) -> str:
        """The place in a TOML file."""
        return f"{self.table}.{self.field}" if self.table else self.name

    @cached_property
    def kind(self) -> Any:
        """The type of one value: without notes, without None, an item's of a tuple."""
        return _plain(self.hint)

    @property
    def choices(self) -> tuple[str, ...]:
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def may_repeat(self) -> bool:
        return get_origin(_bare(self.hint)) is tuple

    @property
    def is_secret(self) -> bool:
        return self.kind is SecretStr

    @property
    def default_text(self) -> str:
        """What holds where nobody chooses; empty where the answer is "none"."""
        if self.option.default:
            return self.option.default
        if self.default is None or self.default in ((), ""):
            return ""
        if isinstance(self.default, bool):
            return "on" if self.default else "off"
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)


def settings_of(struct: type, table: str) -> tuple[Setting, ...]:
    """Every field of the struct that has an `Option`."""
    hints = get_type_hints(struct, include_extras=True)
    return tuple(
        Setting(option, item.name, table, hints[item.name], _default(item))
        for item in fields(struct)
        for option in getattr(hints[item.name], "__metadata__", ())
        if isinstance(option, Option)
    )


def _default(item: Field[Any]) -> Any:
    if item.default is MISSING:
        raise TypeError(f"{item.name}: a setting needs a default")
    return item.default


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _plain(hint: Any) -> Any:
    bare = _bare(hint)
    if get_origin(bare) in (Union, UnionType):
        return _plain(next(kind for kind in get_args(bare) if kind is not type(None)))
    return _plain(get_args(bare)[0]) if get_origin(bare) is tuple else bare
