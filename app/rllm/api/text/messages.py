"""What a chat template is shown of a request's messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from rllm.api.text.formats.generic import UNKNOWN
from rllm.api.text.formats.history import for_template
from rllm.api.text.formats.shapes import AnswerFormat, ReasoningFormat
from rllm.errors import BadRequest

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""For a model whose file has no template. It may know nothing of these markers: the caller warns."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    role: str
    """Any word: the template says whether it takes it."""
    text: str
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: Sequence[Mapping[str, Any]] = ()
    """Of an assistant, as OpenAI has them; their arguments are a JSON object as text."""
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: str | None = None


class Chat(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation, and what a chat template is told beside its messages."""

    messages: Sequence[Message]
    add_generation_prompt: bool | None = None
    """False: the prompt ends with the last message. None: the template's own way."""
    continue_final_message: bool = False
    """The answer goes on with the last message, which is left open."""
    variables: Mapping[str, Any] = {}
    """Further ones, for the template."""
    tools: Sequence[Mapping[str, Any]] = ()
    """What the model is told that it may call, as OpenAI has them."""
    effort: str | None = None
    """Of thinking: "none", "low" and so on. None: the template's own."""

    @property
    def needs_form(self) -> bool:
        """How the model writes calls and thoughts decides what its template is given."""
        return bool(self.tools or self.effort) or any(
            message.tool_calls or message.reasoning or message.reasoning_content or message.thinking
            for message in self.messages
        )

    documents: Sequence[Mapping[str, Any]] = ()
    template: str = ""
    """In place of the model's own, where the operator allows it."""


_OPTIONAL = ("name", "reasoning_content", "reasoning", "thinking")


class MessageRules:
    """What one template can take, as far as its text shows it."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._knows_developer = "developer" in source
        self._optional = tuple(name for name in _OPTIONAL if _uses(source, name))

    def variable(self, message: Message) -> dict[str, Any]:
        """``developer`` is OpenAI's newer word for ``system``; a template that does not know it gets that.

        What a template may not know is given to those that look for it: others may test for its absence.
        """
        role = "system" if message.role == "developer" and not self._knows_developer else message.role
        variable: dict[str, Any] = {"role": role, "content": message.text}
        for name in self._optional:
            value = getattr(message, name)
            if value is not None:
                variable[name] = value
        if message.tool_call_id is not None:
            variable["tool_call_id"] = message.tool_call_id
        if message.tool_calls:
            variable["tool_calls"] = message.tool_calls
        return variable

    def variables(self, chat: Chat, form: AnswerFormat = UNKNOWN) -> dict[str, Any]:
        """All that a request says to the template, which shows calls and thoughts as ``form`` says.

        Raises:
            BadRequest: the template has no use for it.
        """
        variables = dict(chat.variables)
        if reserved := sorted(_RESERVED & variables.keys()):
            raise BadRequest(
                f"chat_template_kwargs must not have '{reserved[0]}'",
                param=f"chat_template_kwargs.{reserved[0]}",
            )
        if chat.add_generation_prompt is not None or chat.continue_final_message:
            variables["add_generation_prompt"] = bool(chat.add_generation_prompt)
        if chat.documents:
            if "documents" not in self._source:
                raise BadRequest(
                    "Unsupported parameter: 'documents': the model's chat template has no use for them.",
                    param="documents",
                    code="unsupported_parameter",
                )
            variables["documents"] = chat.documents
        variables = _of_effort(chat.effort, form.reasoning) | variables
        messages = [self.variable(message) for message in chat.messages]
        variables["messages"], tools = for_template(messages, chat.tools, form)
        if tools is not None:
            variables["tools"] = tools
        return variables


def _of_effort(effort: str | None, reasoning: ReasoningFormat | None) -> dict[str, Any]:
    if effort is None or (reasoning is None and effort == "none"):
        return {}
    variables: dict[str, Any] = {}
    if reasoning is not None and reasoning.switch:
        variables[reasoning.switch] = effort != "none"
    if reasoning is not None and reasoning.takes_effort and effort != "none":
        variables["reasoning_effort"] = effort
    if not variables:
        raise BadRequest(
            f"Unsupported parameter: 'reasoning_effort': the chat template has no use for '{effort}'.",
            param="reasoning_effort",
            code="unsupported_parameter",
        )
    return variables


_RESERVED = frozenset(
    {"messages", "tools", "documents", "chat_template", "tokenize", "bos_token", "eos_token"}
)
"""Of the variables: they are this server's, or stand beside them in a request."""


def _uses(source: str, name: str) -> bool:
    """Whether a template looks at that field of anything."""
    return re.search(rf"\.{name}\b|['\"]{name}['\"]", source) is not None
