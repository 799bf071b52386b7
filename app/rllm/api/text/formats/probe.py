"""A chat template asked by example: what it writes for messages made of words that occur nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from rllm.api.text.formats.units import common_prefix, rest_after, units

Message: TypeAlias = dict[str, Any]
Render: TypeAlias = Callable[[list[Message], list[dict[str, Any]] | None, dict[str, Any]], str]
"""(messages, tools, other variables) → text. May raise anything: the template refuses."""

NAMES = ("qxfirst", "qxsecond")
IDS = ("idqxaaaa1", "idqxaaaa2")
"""Of nine characters, which the strictest templates demand."""
PARAMETER, OTHER = "qxkey", "qxother"
VALUE, OTHER_VALUE = "qxvalue", "qxlast"
CONTENT, THOUGHT, RESULT, DESCRIPTION = "qxcontent", "qxthought", "qxresult", "qxdescription"

USER: Message = {"role": "user", "content": "qxquestion"}
_PARAMETERS = {
    "type": "object",
    "properties": {
        PARAMETER: {"type": "string", "description": "one"},
        OTHER: {"type": "string", "description": "two"},
    },
    "required": [PARAMETER],
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": name, "description": DESCRIPTION, "parameters": _PARAMETERS}}
    for name in NAMES
]


def call(number: int, arguments: object, call_id: str = "") -> Message:
    function = {"name": NAMES[number], "arguments": arguments}
    return {"id": call_id or IDS[number], "type": "function", "function": function}


def assistant(content: str | None, **fields: object) -> Message:
    return {"role": "assistant", "content": content, **fields}


class Probe:
    """One template, and what it writes for an assistant's turn. Renderings are made once."""

    def __init__(self, render: Render) -> None:
        self._render = render
        self._known: dict[str, str] = {}

    def text(self, messages: list[Message], **variables: object) -> str:
        """Empty: the template refuses."""
        asked = repr((messages, variables))
        if asked not in self._known:
            try:
                self._known[asked] = self._render(
                    messages, TOOLS, {"add_generation_prompt": False, **variables}
                )
            except Exception:  # a stranger's program: whatever it raises, there is no text
                self._known[asked] = ""
        return self._known[asked]

    def opening(self, **variables: object) -> str:
        """What the prompt ends with, so that the model answers."""
        prompt = self.text([USER], add_generation_prompt=True, **variables)
        return rest_after(self.text([USER], **variables), prompt)

    def turn(self, message: Message, **variables: object) -> str:
        """An assistant's turn with the header before it; empty: refused."""
        return rest_after(self.text([USER], **variables), self.text([USER, message], **variables))

    def without_header(self, turn: str) -> str:
        opening = units(self.opening())
        for start in range(len(opening)):  # some prompts end a system's turn first
            if shared := common_prefix(turn, "".join(opening[start:])):
                return turn[len(shared) :]
        return turn
