"""A model's chat template: from messages to text, cut so that no user text can become a control token."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import jinja2

from rllm.api.control_text import ControlTexts, Piece
from rllm.api.protocol import ChatMessage
from rllm.api.sandbox import SandboxedTemplate, TemplateRefused, TemplateTooExpensive
from rllm.errors import BadRequest

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""For a model whose file has no template. It may know nothing of these markers: the caller warns."""


class ChatTemplate:
    """One model's template. Thread-safe."""

    def __init__(self, source: str | None, *, bos_text: str, eos_text: str) -> None:
        """
        Raises:
            BadRequest: the model's template is broken; text completions still work.
        """
        self.is_fallback = source is None
        self._bos_text = bos_text
        self._eos_text = eos_text
        try:
            self._template = SandboxedTemplate(CHATML if source is None else source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise BadRequest(
                f"the model's chat template is broken ({_short(error)}); /v1/completions works without it",
                code="chat_template_error",
            ) from None
        self._knows_developer = "developer" in self._template.source
        self._optional = frozenset(name for name in _OPTIONAL if _uses(self._template.source, name))

    def render(
        self,
        messages: Sequence[ChatMessage],
        controls: ControlTexts,
        *,
        without_bos: bool,
        timeout_s: float,
        max_chars: int,
    ) -> list[Piece]:
        """The prompt up to where the assistant speaks, in pieces to be tokenized apart and joined.

        ``without_bos``: the caller puts BOS in front, as the model wants it, so the template's own is left
        out. Other models have a BOS that is an ordinary part of the template ("<|im_start|>"): it stays.

        Raises:
            BadRequest: the template refuses the messages, fails on them, or takes too long.
        """
        guard = controls.guard(_user_texts(messages), avoid=self._template.source)
        shown = [self._as_variable(message, guard.protect) for message in messages]
        variables = {
            "messages": shown,
            "add_generation_prompt": True,
            "bos_token": self._bos_text,
            "eos_token": self._eos_text,
            "tools": None,
            "documents": None,
        }
        try:
            text = self._template.render(variables, timeout_s=timeout_s, max_chars=max_chars)
        except TemplateTooExpensive as error:
            raise BadRequest(str(error), param="messages", code="chat_template_error") from None
        except TemplateRefused as error:
            message = f"the model's chat template refuses these messages: {_short(error)}"
            raise BadRequest(message, param="messages", code="chat_template_error") from None
        except Exception as error:  # whatever Python raises inside a stranger's template
            message = f"the model's chat template fails on these messages: {_short(error)}"
            raise BadRequest(message, param="messages", code="chat_template_error") from None
        for index, variable in enumerate(shown):
            if variable["role"] not in _USUAL_ROLES and variable["content"].strip() not in text:
                raise BadRequest(
                    f"the model's chat template shows no messages of role '{variable['role']}'",
                    param=f"messages[{index}].role",
                    code="chat_template_error",
                )
        if without_bos and self._bos_text:
            text = text.removeprefix(self._bos_text)
        return guard.pieces(text)

    def _as_variable(self, message: ChatMessage, protect: Callable[[str], str]) -> dict[str, str]:
        """``developer`` is OpenAI's newer word for ``system``; a template that does not know it gets that.

        What a template may not know is given to those that look for it: others may test for its absence.
        """
        role = "system" if message.role == "developer" and not self._knows_developer else message.role
        variable = {"role": role, "content": protect(message.text)}
        for name in _OPTIONAL:
            value = getattr(message, name)
            if value is not None and name in self._optional:
                variable[name] = protect(value)
        if message.tool_call_id is not None:
            variable["tool_call_id"] = protect(message.tool_call_id)
        return variable


_USUAL_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})
_OPTIONAL = ("name", "reasoning_content", "reasoning", "thinking")


def _user_texts(messages: Sequence[ChatMessage]) -> list[str]:
    """Everything in them that somebody may have written."""
    return [
        text
        for message in messages
        for text in (message.text, message.tool_call_id, *(getattr(message, name) for name in _OPTIONAL))
        if text is not None
    ]


def _uses(source: str, name: str) -> bool:
    """Whether a template looks at that field of anything."""
    return re.search(rf"\.{name}\b|['\"]{name}['\"]", source) is not None


def _short(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return " ".join(text.split())[:200]
