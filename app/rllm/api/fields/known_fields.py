"""What becomes of a field of a request: the rules, in one place. `field_table` has the fields.

A field at a value that asks for nothing is accepted, wherever it stands; null asks for nothing in every
field, known or not. A field that asks for what this server cannot do is refused by name: silence about an
ignored option is a lie.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, Flag, auto
from typing import Any

from pydantic_core import PydanticCustomError

from rllm.api.http.json_body import shorten


class Place(Flag):
    """Where a field may stand."""

    CHAT = auto()
    COMPLETION = auto()
    MESSAGE = auto()
    PART = auto()
    """Of a message's content."""
    STREAM_OPTIONS = auto()
    GENERATION = CHAT | COMPLETION


class Server(Flag):
    """Who has it."""

    OPENAI = auto()
    VLLM = auto()
    LLAMA = auto()
    """llama-server."""
    OLLAMA = auto()
    OTHER = auto()
    """Some other server or client, whose habits are met often."""


class Use(Enum):
    """What this server does with it."""

    HONOURED = "honoured"
    NO_EFFECT = "accepted, no effect"
    REFUSED = "refused"
    """Except at a value that asks for nothing."""
    RENAMED = "another name"
    """Of a field that is honoured."""
    UNKNOWN = "unknown"
    """Refused with a hint: other servers call something so that has another name here."""


@dataclass(frozen=True, slots=True)
class SameAs:
    """Asks for nothing where it has the value of another field."""

    field: str


@dataclass(frozen=True, slots=True)
class KnownField:
    name: str
    place: Place
    servers: Server
    use: Use
    neutral: tuple[object, ...] = ()
    """Values beside null that ask for nothing; of an honoured field, its default."""
    note: str = ""
    """What it does here, or why it is refused: the end of a sentence."""
    other: str = ""
    """The field it is another name of, or that is probably meant."""

    def asks_nothing(self, value: object, beside: Mapping[str, Any]) -> bool:
        return any(_is_same(value, one, beside) for one in self.neutral)


def _is_same(value: object, neutral: object, beside: Mapping[str, Any]) -> bool:
    """JSON's equality: 1 and 1.0 are the same, 1 and true are not."""
    if isinstance(neutral, SameAs):
        neutral = beside.get(neutral.field)
    return isinstance(value, bool) is isinstance(neutral, bool) and value == neutral


def refuse(
    message: str, *, param: str | None = None, field: str | None = None, code: str = "invalid_value"
) -> PydanticCustomError:
    """A mistake with its own sentence; raised by validators. ``{path}`` in it becomes the field's path:
    ``param``, or the place where the validator stands, and there ``field``."""
    context = {"message": message, "code": code}
    if param is not None:
        context["param"] = param
    if field is not None:
        context["field"] = field
    return PydanticCustomError("refused", "{message}", context)


class FieldTable:
    def __init__(self, rows: Iterable[KnownField]) -> None:
        self.rows = tuple(rows)
        places = (Place.CHAT, Place.COMPLETION, Place.MESSAGE, Place.PART, Place.STREAM_OPTIONS)
        self._by_place = {
            place: {row.name: row for row in self.rows if place in row.place} for place in places
        }

    def at(self, place: Place) -> Mapping[str, KnownField]:
        """The fields of one place, by name."""
        return self._by_place[place]

    def pick(self, place: Place, data: Mapping[str, Any], *, at: str = "") -> dict[str, Any]:
        """What is left to be understood: honoured fields that ask for something, under their own names.

        ``at`` leads from where the validator stands to ``data``, as in "[2].".

        Raises:
            PydanticCustomError: `refuse`, for the first field that is unknown or asks for too much.
        """
        known = self._by_place[place]
        kept: dict[str, Any] = {}
        for name, value in data.items():
            if value is None:
                continue
            row = known.get(name)
            if row is None:
                raise _unknown(name, at, known)
            match row.use:
                case Use.HONOURED:
                    _keep(kept, name, name, value, at)
                case Use.RENAMED if not row.asks_nothing(value, data):
                    _keep(kept, row.other, name, value, at)
                case Use.REFUSED if not row.asks_nothing(value, data):
                    raise refuse(
                        f"Unsupported parameter: '{{path}}': {row.note}.",
                        field=at + name,
                        code="unsupported_parameter",
                    )
                case Use.UNKNOWN:
                    raise _unknown(name, at, known)
        return kept


def _keep(kept: dict[str, Any], name: str, given_as: str, value: Any, at: str) -> None:
    if name in kept and kept[name] != value:
        raise refuse(
            f"{{path}}: '{name}' is given under two names, with different values", field=at + given_as
        )
    kept[name] = value


def _unknown(name: str, at: str, known: Mapping[str, KnownField]) -> PydanticCustomError:
    honoured = [row.name for row in known.values() if row.use is Use.HONOURED]
    meant = known[name].other if name in known else None
    near = meant or next(iter(difflib.get_close_matches(name[:64], honoured, n=1)), None)
    hint = f" Did you mean '{near}'?" if near else ""
    return refuse(f"Unknown parameter: '{{path}}'.{hint}", field=at + shorten(name), code="unknown_parameter")
