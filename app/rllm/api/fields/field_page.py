"""docs/fields.md, made from the table: `python -m rllm.api.fields.field_page > docs/fields.md`."""

from __future__ import annotations

import json
from collections.abc import Iterable

from rllm.api.fields.field_table import TABLE
from rllm.api.fields.known_fields import KnownField, Place, SameAs, Server, Use

_HEAD = """\
# Fields of a request

<!-- Made from app/rllm/api/fields/field_table.py: python -m rllm.api.fields.field_page > docs/fields.md -->

What `/v1/chat/completions` and `/v1/completions` make of every field that OpenAI, vLLM, llama-server or
Ollama know. Three rules hold everywhere:

- **null asks for nothing**: any field may be null, also one that is not in these tables.
- **A value that asks for nothing is accepted.** The tables name these values.
- **What this server cannot do is refused by name**, with status 400 and the field in `error.param`. A field
  that nobody knows is refused too: it is more often a misspelling than a wish.

"Honoured" fields are checked for their type and range; `/openapi.json` has the limits. A field that is
"accepted, no effect" may have any value.
"""
_SECTIONS = (
    ("Both kinds of completion", Place.GENERATION),
    ("`/v1/chat/completions` only", Place.CHAT),
    ("`/v1/completions` only", Place.COMPLETION),
    ("A message", Place.MESSAGE),
    ("A part of a message's content", Place.PART),
    ("`stream_options`", Place.STREAM_OPTIONS),
)
_SERVERS = (
    ("OpenAI", Server.OPENAI),
    ("vLLM", Server.VLLM),
    ("llama-server", Server.LLAMA),
    ("Ollama", Server.OLLAMA),
)
_ORDER = (Use.HONOURED, Use.RENAMED, Use.NO_EFFECT, Use.REFUSED, Use.UNKNOWN)


def page() -> str:
    return "\n".join([_HEAD, *(_section(title, place) for title, place in _SECTIONS)])


def _section(title: str, place: Place) -> str:
    rows = [row for row in TABLE.rows if row.place == place]
    names = [name for name, _ in _SERVERS]
    lines = [
        f"## {title}",
        "",
        _line(["field", *names, "asks for nothing", "here"]),
        _line(["---", *[":-:"] * len(names), "---", "---"]),
        *(_row(row) for row in sorted(rows, key=lambda row: _ORDER.index(row.use))),
    ]
    return "\n".join(lines) + "\n"


def _row(row: KnownField) -> str:
    marks = ["×" if server in row.servers else "" for _, server in _SERVERS]
    return _line([f"`{row.name}`", *marks, _neutral(row), _here(row)])


def _neutral(row: KnownField) -> str:
    if row.use is Use.NO_EFFECT:
        return "any value"
    return ", ".join(
        f"the value of `{value.field}`" if isinstance(value, SameAs) else f"`{json.dumps(value)}`"
        for value in row.neutral
    )


def _here(row: KnownField) -> str:
    match row.use:
        case Use.RENAMED:
            return f"another name of `{row.other}`"
        case Use.UNKNOWN:
            return f"refused; here it is `{row.other}`"
        case _:
            return f"{row.use.value}: {row.note}" if row.note else row.use.value


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(page(), end="")
