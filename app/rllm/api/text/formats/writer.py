"""Calls and tools as text, for templates that write none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rllm.api.text.formats.shapes import ID, INDEX, KEY, KIND, NUMBER, Style, ToolFormat
from rllm.api.text.formats.values import as_json

_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def written_calls(tools: ToolFormat, calls: Sequence[tuple[str, Mapping[str, Any], str]]) -> str:
    """One turn's calls, each a name, arguments and an id, as the model would write them."""
    texts = [_call(tools, *call, index) for index, call in enumerate(calls)]
    return tools.section_begin + tools.separator.join(texts) + tools.section_end


def _call(tools: ToolFormat, name: str, arguments: Mapping[str, Any], call_id: str, index: int) -> str:
    slots = {ID: call_id, INDEX: str(index), NUMBER: str(index + 1)}
    after = tools.after_arguments.removeprefix(")") if tools.style is Style.PYTHON else tools.after_arguments
    before = _filled(tools.before_name, slots) + name + _filled(tools.before_arguments, slots)
    return before + _arguments(tools, arguments) + _filled(after, slots)


def _filled(text: str, slots: Mapping[str, str]) -> str:
    for slot, value in slots.items():
        text = text.replace(slot, value)
    return text


def _arguments(tools: ToolFormat, arguments: Mapping[str, Any]) -> str:
    if tools.style is Style.PYTHON:
        return ", ".join(f"{key}={value!r}" for key, value in arguments.items()) + ")"
    if tools.style is Style.UNQUOTED:
        return _unquoted(dict(arguments), tools.quote)
    if tools.style is Style.TAGGED and tools.tags is not None:
        return tools.tags.separator.join(_tagged(tools, key, value) for key, value in arguments.items())
    return as_json(arguments)


def _tagged(tools: ToolFormat, key: str, value: object) -> str:
    tags = tools.tags
    assert tags is not None
    kind = tags.kinds.get(_KINDS.get(type(value), "null"), "")
    before = tags.before_value.replace(KIND, kind)
    text = value if isinstance(value, str) and tags.raw_strings else as_json(value)
    return tags.before_key + key + before + text + tags.after_value.replace(KEY, key)


def _unquoted(value: object, quote: str) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_unquoted(each, quote)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_unquoted(each, quote) for each in value) + "]"
    return quote + value + quote if isinstance(value, str) else as_json(value)


def instruction(tools: ToolFormat, functions: Sequence[Mapping[str, Any]]) -> str:
    """What a system message says of the tools, where the template does not.

    Args:
        functions: each a name, and perhaps a description and parameters.
    """
    example = written_calls(tools, [("NAME", {"PARAMETER": "VALUE"}, "ID")])
    told = "\n".join(json.dumps(function, ensure_ascii=False) for function in functions)
    lines = [
        "You can call these functions, one JSON description per line:",
        f"<tools>\n{told}\n</tools>",
        f"To call one, write this and nothing after it, with its own name and arguments:\n{example}",
    ]
    if tools.parallel:
        lines.append("Write several calls one after the other if more than one is needed.")
    lines.append("Answer in plain text if no function helps.")
    return "\n".join(lines)
