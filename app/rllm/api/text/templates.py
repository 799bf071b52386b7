"""A chat template: from variables to text, cut so that no user text can become a control token.

Runs in the rendering process, whose start every import here delays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rllm.api.text.control_text import ControlTexts, Guard, Piece
from rllm.api.text.sandbox import SandboxedTemplate
from rllm.errors import BadRequest

_USUAL_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})


class ChatTemplate:
    """One model's template, compiled."""

    def __init__(self, source: str, controls: ControlTexts, *, bos_text: str, eos_text: str) -> None:
        """
        Raises:
            Exception: the template is broken, in whatever way.
        """
        self._template = SandboxedTemplate(source)
        self._controls = controls
        self._bos_text = bos_text
        self._own = {
            "add_generation_prompt": True,
            "bos_token": bos_text,
            "eos_token": eos_text,
            "tools": None,
            "documents": None,
        }

    def render(
        self, variables: dict[str, Any], *, without_bos: bool, max_chars: int, continues: bool = False
    ) -> list[Piece]:
        """The prompt up to where the assistant speaks, in pieces to be tokenized apart and joined.

        Args:
            variables: JSON; ``messages`` and whatever else the template is to know.
            without_bos: the caller puts BOS in front, as the model wants it, so the template's own is left
                out. Other models have a BOS that is a part of the template ("<|im_start|>"): it stays.
            continues: the prompt ends with the last message's content, so that an answer goes on with it.

        Raises:
            TemplateRefused, TemplateTooLong, Exception: see `SandboxedTemplate.render`.
            BadRequest: the template cut a control text of a message apart, or shows nothing of its role.
        """
        guard = self._controls.guard(list(_texts(variables)), avoid=self._template.source)
        guarded = {name: _guarded(value, guard) for name, value in variables.items() if name != "messages"}
        messages = [_guarded_message(message, guard) for message in variables["messages"]]
        end = guard.end() if continues else ""
        if continues:
            messages[-1]["content"] = (messages[-1]["content"] or "") + end
        text = self._template.render({**self._own, **guarded, "messages": messages}, max_chars=max_chars)
        _refuse_hidden(messages, text)
        if end:
            text = _up_to(text, end)
        if without_bos and self._bos_text:
            text = text.removeprefix(self._bos_text)
        return guard.pieces(text)

    @property
    def source(self) -> str:
        return self._template.source

    def plain(
        self,
        messages: list[dict[str, Any]],
        tools: list[dict[str, Any]] | None,
        variables: dict[str, Any],
        *,
        max_chars: int,
    ) -> str:
        """The text for messages of this server's own making, which have no control texts.

        Raises:
            Exception: as `render`.
        """
        own = {**self._own, "tools": tools, **variables, "messages": messages}
        return self._template.render(own, max_chars=max_chars)


def _texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value, names of fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _guarded(value: Any, guard: Guard) -> Any:
    """A JSON value whose control texts are placeholders."""
    if isinstance(value, str):
        return guard.protect(value)
    if isinstance(value, list):
        return [_guarded(item, guard) for item in value]
    if isinstance(value, dict):
        return {guard.protect_name(name): _guarded(item, guard) for name, item in value.items()}
    return value


def _guarded_message(message: dict[str, Any], guard: Guard) -> dict[str, Any]:
    """A usual role is left as it is: templates compare it with words of theirs."""
    return {
        name: item if name == "role" and item in _USUAL_ROLES else _guarded(item, guard)
        for name, item in message.items()
    }


def _up_to(text: str, end: str) -> str:
    found = text.rfind(end)
    if found < 0:
        raise BadRequest(
            "the model's chat template shows no end of the last message: it cannot be continued",
            param="continue_final_message",
            code="chat_template_error",
        )
    return text[:found]


def _refuse_hidden(messages: Sequence[dict[str, Any]], text: str) -> None:
    """Templates pass over messages of roles that they do not know."""
    for index, message in enumerate(messages):
        if message["role"] not in _USUAL_ROLES and (message["content"] or "").strip() not in text:
            raise BadRequest(
                f"the model's chat template shows no messages of role '{message['role']}'",
                param=f"messages[{index}].role",
                code="chat_template_error",
            )
