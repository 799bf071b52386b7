"""What a chat template is shown of earlier calls and results, and of the tools, in the form that it takes."""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from rllm.api.text.formats.shapes import AnswerFormat, IdForm, ToolFormat
from rllm.api.text.formats.writer import instruction, written_calls

Variable: TypeAlias = dict[str, Any]
"""A message as templates know it: OpenAI's fields, calls with their arguments as JSON text."""
_ALPHABET = string.ascii_letters + string.digits
_NINE = re.compile(r"[a-zA-Z0-9]{9}")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")


def for_template(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], form: AnswerFormat
) -> tuple[list[Variable], list[Mapping[str, Any]] | None]:
    """The messages and the tools that the template is given.

    Args:
        tools: as OpenAI has them; those of this request.
    """
    if not tools and not any(message.get("tool_calls") for message in messages):
        return [_thinker(message, form) for message in messages], None
    ids = _Ids(form.tools)
    shown: list[Variable] = []
    for message in messages:
        if message.get("tool_calls"):
            shown.append(_caller(message, ids, form))
        elif message["role"] == "tool":
            _add_result(shown, message, ids, form.tools)
        else:
            shown.append(_thinker(message, form))
    if not tools:
        return shown, None
    if form.tools.tells_tools:
        return shown, list(tools)
    told = instruction(form.tools, [tool["function"] for tool in tools])
    return _with_system(shown, told, form), None


def _thinker(message: Mapping[str, Any], form: AnswerFormat) -> Variable:
    """With its thought where the template looks for it."""
    variable = dict(message)
    thought = next((message[name] for name in _THOUGHTS if message.get(name)), None)
    if thought is not None and form.reasoning is not None and form.reasoning.field:
        variable[form.reasoning.field] = thought
    return variable


def _caller(message: Mapping[str, Any], ids: _Ids, form: AnswerFormat) -> Variable:
    variable, tools = _thinker(message, form), form.tools
    calls = [_Call(call, ids) for call in variable.pop("tool_calls")]
    content = variable.get("content") or ""
    if tools.writes_calls:
        variable["content"] = content or tools.no_content
        variable["tool_calls"] = [call.variable(as_text=tools.arguments_as_text) for call in calls]
    else:
        written = written_calls(tools, [(call.name, call.arguments, call.id) for call in calls])
        variable["content"] = f"{content}\n{written}" if content else written
    return variable


class _Call:
    def __init__(self, call: Mapping[str, Any], ids: _Ids) -> None:
        self.name: str = call["function"]["name"]
        self._text: str = call["function"]["arguments"]
        self.arguments: dict[str, Any] = json.loads(self._text or "{}")
        self.id = ids.of_call(call["id"], self.name)

    def variable(self, *, as_text: bool) -> Variable:
        function = {"name": self.name, "arguments": self._text if as_text else self.arguments}
        return {"id": self.id, "type": "function", "function": function}


class _Ids:
    """Ids of calls in the form that the template demands; the same for a call and its result."""

    def __init__(self, tools: ToolFormat) -> None:
        self._form = tools.id_form
        self._known: dict[str, tuple[str, str]] = {}

    def of_call(self, given: str, name: str) -> str:
        found = given
        if self._form is IdForm.FUNCTIONS:
            found = f"functions.{name}:{len(self._known)}"
        elif self._form is IdForm.NINE and not _NINE.fullmatch(given):
            digest = hashlib.sha256(given.encode()).digest()
            found = "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in digest[:9])
        self._known[given] = (found, name)
        return found

    def of_result(self, given: str) -> tuple[str, str]:
        """And the function's name; empty: no call of this id is there."""
        return self._known.get(given, (given, ""))


def _add_result(shown: list[Variable], message: Mapping[str, Any], ids: _Ids, tools: ToolFormat) -> None:
    call_id, name = ids.of_result(message.get("tool_call_id") or "")
    content = message["content"] or ""
    if tools.shows_results:
        result = {**message, "content": content, "tool_call_id": call_id}
        if name:
            result.setdefault("name", name)
        shown.append(result)
        return
    told = tools.result_begin + content + tools.result_end
    if shown and shown[-1]["role"] == "user" and shown[-1]["content"].startswith(tools.result_begin):
        shown[-1]["content"] += f"\n{told}"  # results of parallel calls: users and assistants take turns
    else:
        shown.append({"role": "user", "content": told})


def _with_system(shown: list[Variable], told: str, form: AnswerFormat) -> list[Variable]:
    """With what the system message says of the tools; of models without one, the first user's does."""
    roles = ("system", "developer") if form.takes_system else ("user",)
    first = next((index for index, message in enumerate(shown) if message["role"] in roles), None)
    if first is None:
        return [{"role": roles[0], "content": told}, *shown]
    message = shown[first]
    content = message.get("content") or ""
    texts = (content, told) if form.takes_system else (told, content)
    return [*shown[:first], {**message, "content": "\n\n".join(filter(None, texts))}, *shown[first + 1 :]]
