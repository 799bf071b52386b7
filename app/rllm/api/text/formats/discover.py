"""A model's way of writing calls, read off from what its template makes of a few made-up turns.

Two turns that differ in one thing show how that thing is written: a turn with one call and one with two where
calls begin and end, one and two arguments where those do. No model's name is looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from msgspec.structs import replace

from rllm.api.answer.parts import CallArguments, CallBegin
from rllm.api.text.formats.families import family_of
from rllm.api.text.formats.generic import GENERIC_TOOLS
from rllm.api.text.formats.parser import AnswerParser
from rllm.api.text.formats.probe import (
    CONTENT,
    DESCRIPTION,
    IDS,
    NAMES,
    OTHER,
    OTHER_VALUE,
    PARAMETER,
    RESULT,
    USER,
    VALUE,
    Probe,
    Render,
    assistant,
    call,
)
from rllm.api.text.formats.shapes import (
    ID,
    INDEX,
    TEMPLATE,
    AnswerFormat,
    ArgumentTags,
    IdForm,
    ReasoningFormat,
    Style,
    ToolFormat,
)
from rllm.api.text.formats.thoughts import find_reasoning
from rllm.api.text.formats.units import common_suffix, is_marker, units, without_suffix
from rllm.api.text.formats.written import (
    Sections,
    example,
    gap_before,
    json_values,
    kinds_of,
    sections,
    tags_of,
    take_apart,
    without_tags,
)

_ONE: Mapping[str, Any] = {PARAMETER: VALUE}
_TWO: Mapping[str, Any] = {PARAMETER: VALUE, OTHER: OTHER_VALUE}
_KINDS: Mapping[str, tuple[Any, str]] = {
    "integer": (87, "87"),
    "number": (8.5, "8.5"),
    "boolean": (True, "true"),
    "array": ([8.5], "["),
    "object": ({"qx": 8.5}, "{"),
    "null": (None, "null"),
}
"""JSON type → an example, and how it begins where it is written."""
_SYSTEM = {"role": "system", "content": "qxsystem"}
_PYTHON = ("None", "'tool_calls'", '"tool_calls"')
"""In a turn: the template shows a value, or a message, and does not write it."""
_LONG_ID = "call_0123456789abcdef0123"


def discover(render: Render, source: str) -> AnswerFormat:
    """
    Args:
        render: the template; called a few dozen times with small messages.
        source: of the template, for families that show nothing, and for tags that are only cut out.
    """
    if (family := family_of(source)) is not None:
        return family
    probe = Probe(render)
    turns = _Turns(probe, find_reasoning(probe, source))
    found = _tools(turns)
    return AnswerFormat(
        tools=found[0] if found else GENERIC_TOOLS,
        reasoning=turns.reasoning,
        wrappers=tuple(_wrappers(turns, found[1])) if found else (),
        takes_system="qxsystem" in probe.text([_SYSTEM, USER], add_generation_prompt=True),
    )


class _Asked(NamedTuple):
    """Templates want messages with calls in one of these forms."""

    content: str | None
    as_text: bool
    functions_ids: bool


_FORMS = tuple(
    _Asked(content, as_text, functions_ids)
    for functions_ids in (False, True)
    for as_text in (False, True)
    for content in (None, "")
)


class _Turns:
    """Assistant's turns as the model writes them: without the header, and without an empty thought."""

    def __init__(self, probe: Probe, reasoning: ReasoningFormat | None) -> None:
        self.probe = probe
        self.reasoning = reasoning

    def plain(self) -> tuple[str, str]:
        """What stands before and after a text; both empty: refused."""
        before, _, after = self._turn(assistant(CONTENT)).partition(CONTENT)
        return before, after

    def calls(self, form: _Asked, *arguments: Mapping[str, Any]) -> str:
        calls = [self._call(form, number, given) for number, given in enumerate(arguments)]
        text = self._turn(assistant(form.content, tool_calls=calls))
        for call_id in IDS:
            text = text.replace(call_id, ID)
        return text

    def result(self, form: _Asked, after_call: str) -> tuple[str, str]:
        """What stands before and after a result; both empty: it is not shown."""
        message = assistant(form.content, tool_calls=[self._call(form, 0, _ONE)])
        result = {"role": "tool", "tool_call_id": IDS[0], "name": NAMES[0], "content": RESULT}
        before, found, after = self.probe.text([USER, message, result]).partition(RESULT)
        if not found:
            return "", ""
        since_call = before[before.rfind(VALUE) + len(VALUE) :].replace(IDS[0], ID)
        _, found, begin = since_call.partition(after_call)
        return begin if found else since_call, after.replace(IDS[0], ID)

    def takes(self, form: _Asked, call_id: str) -> bool:
        message = assistant(form.content, tool_calls=[self._call(form, 0, _ONE) | {"id": call_id}])
        return bool(self.probe.turn(message))

    def _call(self, form: _Asked, number: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
        call_id = f"functions.{NAMES[number]}:{number}" if form.functions_ids else ""
        return call(number, example(arguments, as_text=form.as_text), call_id)

    def _turn(self, message: dict[str, Any]) -> str:
        text = self.probe.without_header(self.probe.turn(message))
        if self.reasoning is not None:
            begin, end = self.reasoning.begin.strip(), self.reasoning.end.strip()
            bare = text.lstrip().removeprefix(begin).lstrip()
            text = bare.removeprefix(end) if bare.startswith(end) else text
        return text.lstrip()


def _tools(turns: _Turns) -> tuple[ToolFormat, str] | None:
    """The format and what ends a turn. None: the template writes no calls, or none that can be read."""
    read = [found for form in _FORMS if (found := _read(turns, form)) is not None]
    return next((found for found in read if found[0].shows_results), read[0] if read else None)


def _tells_tools(probe: Probe) -> bool:
    texts = (probe.text(messages, add_generation_prompt=True) for messages in ([USER], [_SYSTEM, USER]))
    return any(DESCRIPTION in text for text in texts)


def _read(turns: _Turns, form: _Asked) -> tuple[ToolFormat, str] | None:
    written = take_apart(turn := turns.calls(form, _ONE), 0)
    if written is None or turn.count(NAMES[0]) != 1 or any(word in turn for word in _PYTHON):
        return None
    tags = None
    if written.style is Style.TAGGED:
        if (tags := tags_of(written, turns.calls(form, _TWO))) is None:
            return None
        tags = _with_kinds(turns, form, json_values(tags))
    after = written.after.rstrip()
    turn_end = common_suffix(after, turns.plain()[1].rstrip())
    after = without_suffix(after, turn_end)
    both = take_apart(turns.calls(form, _ONE, _ONE), 0)
    found = sections(written, both, after) if both else None
    parts = found or Sections("", written.before, written.between, after, "", "")
    if tags is not None:
        parts = without_tags(parts, tags)
    begin, end = turns.result(form, written.after)
    tools = ToolFormat(
        source=TEMPLATE,
        style=written.style,
        tags=tags,
        quote=written.quote,
        parallel=found is not None,
        id_form=_id_form(turns, form, parts),
        arguments_as_text=form.as_text,
        no_content=form.content,
        tells_tools=_tells_tools(turns.probe),
        shows_results=bool(begin),
        result_begin=begin,
        result_end=end,
        **parts._asdict(),
    )
    return (tools, turn_end) if _reads_back(tools, without_suffix(turn.rstrip(), turn_end)) else None


def _reads_back(tools: ToolFormat, turn: str) -> bool:
    """The parser finds the call again: what it would not find is not known."""
    schema = {"properties": {PARAMETER: {"type": "string"}}}
    parser = AnswerParser(AnswerFormat(tools=tools), {NAMES[0]: schema})
    parts = [*parser.parts(turn), *parser.rest()]
    arguments = "".join(part.text for part in parts if isinstance(part, CallArguments))
    is_call = len(parts) == 3 and isinstance(parts[0], CallBegin)
    return is_call and json.loads(arguments) == _ONE


def _with_kinds(turns: _Turns, form: _Asked, tags: ArgumentTags) -> ArgumentTags:
    gaps = {
        kind: gap
        for kind, (value, begin) in _KINDS.items()
        if (gap := gap_before(turns.calls(form, {PARAMETER: value}), begin)) is not None
    }
    before_value, kinds = kinds_of(tags.before_value, gaps)
    return replace(tags, before_value=before_value, kinds=kinds)


def _id_form(turns: _Turns, form: _Asked, parts: Sections) -> IdForm:
    if parts.before_name.endswith("functions.") and parts.before_arguments.startswith(f":{INDEX}"):
        return IdForm.FUNCTIONS
    return IdForm.FREE if turns.takes(form, _LONG_ID) else IdForm.NINE


def _wrappers(turns: _Turns, turn_end: str) -> Iterator[str]:
    """Markers around plain text that belong neither to a thought nor to the turn."""
    before, after = turns.plain()
    for text in (
        before.strip(),
        without_suffix(after.rstrip(), common_suffix(after.rstrip(), turn_end)).strip(),
    ):
        if text and is_marker(units(text)[0]) and is_marker(units(text)[-1]):
            yield text
