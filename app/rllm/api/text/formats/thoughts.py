"""Where a model's thoughts begin and end, found from its template."""

from __future__ import annotations

import re
from typing import Any

from msgspec.structs import replace

from rllm.api.text.formats.probe import CONTENT, THOUGHT, USER, Probe, assistant, call
from rllm.api.text.formats.shapes import ReasoningFormat
from rllm.api.text.formats.units import common_prefix, common_suffix, is_marker, units, without_suffix

_FIELDS = ("reasoning_content", "reasoning", "thinking")
_SWITCHES = ("enable_thinking", "thinking")
_NAMED = re.compile(r"(<|\[)/([\w:]*(?:think|reason)[\w:]*)(>|\])", re.IGNORECASE)
"""A closing tag in a template's source, for those that only cut thoughts out of contents."""


def find_reasoning(probe: Probe, source: str) -> ReasoningFormat | None:
    """None: the model has no thoughts, as far as its template shows."""
    switch = next((name for name in _SWITCHES if _matters(probe, name, True, False)), "")
    begin, end, field = _from_history(probe, switch) or _from_source(source) or ("", "", "")
    if not begin.strip() or not end.strip():
        return None
    found = ReasoningFormat(
        begin=begin,
        end=end,
        switch=switch,
        takes_effort=_matters(probe, "reasoning_effort", "low", "high"),
        field=field,
    )
    return replace(found, opened=found.is_open(probe.opening()))


def _matters(probe: Probe, name: str, one: object, other: object) -> bool:
    variables: list[dict[str, Any]] = [{name: one}, {name: other}]
    ask = [probe.text([USER], add_generation_prompt=True, **each) for each in variables]
    return "" not in ask and ask[0] != ask[1]


def _from_history(probe: Probe, switch: str) -> tuple[str, str, str] | None:
    bare = assistant("", tool_calls=[call(0, {})])
    for field in _FIELDS:
        thought = {field: THOUGHT}
        before, found, rest = probe.turn(assistant(CONTENT) | thought).partition(THOUGHT)
        if before[-len(field) - 4 :].strip("':\" ").endswith(field):
            continue  # the template shows a message as it is
        before_call, found_call, rest_call = probe.turn(bare | thought).partition(THOUGHT)
        end_call = without_suffix(rest_call, common_suffix(rest_call, probe.turn(bare)))
        if found and CONTENT in rest:
            end = rest[: rest.index(CONTENT)]
            begin = _begin(probe, before, switch)
            return begin, _end(begin, common_prefix(end, rest_call).rstrip() or end), field
        if found_call and end_call.strip():  # some show thoughts only before a call
            begin = _begin(probe, before_call, switch)
            return begin, _end(begin, end_call), field
    return None


def _begin(probe: Probe, before: str, switch: str) -> str:
    """What stands before a thought, without the turn's header, which some opening or turn shows alone."""
    variables: list[dict[str, Any]] = [{}, {switch: True}, {switch: False}] if switch else [{}]
    alone = [probe.opening(**each) for each in variables]
    alone += [probe.turn(assistant(CONTENT)), probe.turn(assistant("", tool_calls=[call(0, {})]))]
    header = min(filter(None, (common_prefix(before, each) for each in alone)), key=len, default="")
    if len(header) < len(before.rstrip()):
        begin, headers = before[len(header) :], units(header)
        starts_amid = begin[0].isalnum() and bool(headers) and is_marker(headers[-1])
        return headers[-1] + begin if starts_amid else begin
    found = units(before)  # the prompt always opens the thought
    last = max((place for place, unit in enumerate(found) if is_marker(unit)), default=-1)
    return "".join(found[last + 1 :]).strip() or "".join(found[last:])


def _end(begin: str, end: str) -> str:
    """Of as many words as the beginning: what follows belongs to the text after the thought."""
    end = end.lstrip()
    return "".join(units(end)[: max(len(units(begin.strip())), 1)]) if is_marker(units(end)[0]) else end


def _from_source(source: str) -> tuple[str, str, str] | None:
    for left, name, right in _NAMED.findall(source):
        begin = f"{left}{name}{right}"
        if begin in source:
            return begin, f"{left}/{name}{right}", ""
    return None
