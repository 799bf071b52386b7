"""The templates, and what they write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rllm.api.answer.parts import CallArguments, CallBegin, CallEnd, Part, Reasoning, Text
from rllm.api.text.formats.discover import discover
from rllm.api.text.formats.parser import AnswerParser
from rllm.api.text.formats.probe import CONTENT, Probe, Render, assistant
from rllm.api.text.formats.shapes import AnswerFormat, IdForm, Style
from rllm.api.text.formats.units import common_suffix
from rllm.api.text.sandbox import SandboxedTemplate

FOLDER = Path(__file__).parent / "templates"
NAMES = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.jinja"))

SCHEMAS: dict[str, Any] = {
    "get_weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer"},
            "options": {"type": "object"},
            "tags": {"type": "array"},
            "exact": {"type": "boolean"},
        },
    },
    "run.code-2": {"type": "object", "properties": {"code": {"type": "string"}, "zip": {"type": "string"}}},
}
ARGUMENTS: tuple[dict[str, Any], ...] = (
    {
        "city": "Zürich 東京 🙂",
        "days": -3,
        "options": {"near": [1, 2.5, {"far": None}], "note": 'a "b"'},
        "tags": ["x", "y"],
        "exact": True,
    },
    {"code": 'if a < b:\n    print("{}")\n', "zip": "8001"},
)
THOUGHT = "First: 1 < 2.\n\nThen a call."


def render_of(name: str) -> Render:
    template = SandboxedTemplate(source_of(name))

    def render(messages: list[dict[str, Any]], tools: Any, variables: dict[str, Any]) -> str:
        own = {"bos_token": "<s>", "eos_token": "</s>", "documents": None, "tools": tools}
        return template.render({**own, **variables, "messages": messages}, max_chars=10**6)

    return render


def source_of(name: str) -> str:
    return (FOLDER / f"{name}.jinja").read_text()


@cache
def format_of(name: str) -> AnswerFormat:
    return discover(render_of(name), source_of(name))


def answer(name: str, arguments: Sequence[dict[str, Any]], *, thought: str = "") -> tuple[str, bool]:
    """A turn with one call for each of ``arguments`` as the template writes it, without what the prompt ends
    with and what ends the turn; and whether it begins inside its thought."""
    form = format_of(name)
    calls = [
        {
            "id": given_id(form, function, number),
            "type": "function",
            "function": {
                "name": function,
                "arguments": json.dumps(given) if form.tools.arguments_as_text else given,
            },
        }
        for number, (function, given) in enumerate(zip(SCHEMAS, arguments, strict=False))
    ]
    fields = {form.reasoning.field: thought} if thought and form.reasoning and form.reasoning.field else {}
    probe = Probe(render_of(name))
    turn = probe.without_header(probe.turn(assistant(form.tools.no_content, tool_calls=calls, **fields)))
    plain = probe.turn(assistant(CONTENT)).partition(CONTENT)[2]
    turn = turn.rstrip().removesuffix(common_suffix(turn.rstrip(), plain.rstrip()))
    if form.reasoning is None or form.reasoning.end.strip() not in turn:
        return turn, False
    return turn, not turn.lstrip().startswith(form.reasoning.begin.strip())


def given_id(form: AnswerFormat, function: str, number: int) -> str:
    return f"functions.{function}:{number}" if form.tools.id_form is IdForm.FUNCTIONS else f"abcdefgh{number}"


class Told:
    """What a parser said, put together."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.text = "".join(part.text for part in parts if isinstance(part, Text))
        self.thought = "".join(part.text for part in parts if isinstance(part, Reasoning))
        self.begins = [part for part in parts if isinstance(part, CallBegin)]
        self.arguments = [""] * len(self.begins)
        for part in parts:
            if isinstance(part, CallArguments):
                self.arguments[part.index] += part.text
        self.ends = [part.index for part in parts if isinstance(part, CallEnd)]

    @property
    def calls(self) -> list[tuple[str, Any]]:
        return [
            (begin.name, json.loads(text)) for begin, text in zip(self.begins, self.arguments, strict=True)
        ]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Told) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return repr(vars(self))

    __hash__ = None  # type: ignore[assignment]


def parse(
    form: AnswerFormat, text: str, size: int, *, in_thought: bool = False, streams: bool = False
) -> tuple[Told, str]:
    """What is found in ``text``, given in pieces of ``size`` characters; and what it was found in."""
    sources: list[str] = []
    parser = AnswerParser(
        form,
        SCHEMAS,
        in_thought=in_thought,
        streams=streams,
        ids=lambda name, index: f"{name}-{index}",
        trace=lambda part, source: sources.append(source),
    )
    parts: list[Part] = []
    for start in range(0, len(text), size):
        parts += parser.parts(text[start : start + size])
    parts += parser.rest()
    return Told(parts), "".join(sources) + parser.unclaimed


def can_write_calls(name: str) -> bool:
    return format_of(name).tools.writes_calls and format_of(name).tools.style is not Style.HARMONY
