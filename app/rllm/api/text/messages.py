"""What a chat template is shown of a request's messages."""

from __future__ import annotations

import re
from typing import Any

from rllm.api.fields.protocol import ChatMessage, TemplateOptions
from rllm.errors import BadRequest

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""For a model whose file has no template. It may know nothing of these markers: the caller warns."""


_OPTIONAL = ("name", "reasoning_content", "reasoning", "thinking")


class MessageRules:
    """What one template can take, as far as its text shows it."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._knows_developer = "developer" in source
        self._optional = tuple(name for name in _OPTIONAL if _uses(source, name))

    def variable(self, message: ChatMessage) -> dict[str, Any]:
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
        return variable

    def variables(self, options: TemplateOptions) -> dict[str, Any]:
        """What a request says to the template beside its messages.

        Raises:
            BadRequest: the template has no use for it.
        """
        variables = dict(options.chat_template_kwargs or {})
        if reserved := sorted(_RESERVED & variables.keys()):
            raise BadRequest(
                f"chat_template_kwargs must not have '{reserved[0]}'",
                param=f"chat_template_kwargs.{reserved[0]}",
            )
        if options.add_generation_prompt is not None or options.continue_final_message:
            variables["add_generation_prompt"] = bool(options.add_generation_prompt)
        if options.documents:
            if "documents" not in self._source:
                raise BadRequest(
                    "Unsupported parameter: 'documents': the model's chat template has no use for them.",
                    param="documents",
                    code="unsupported_parameter",
                )
            variables["documents"] = options.documents
        return variables


_RESERVED = frozenset(
    {"messages", "tools", "documents", "chat_template", "tokenize", "bos_token", "eos_token"}
)
"""Of the variables: they are this server's, or stand at the top of a options."""


def _uses(source: str, name: str) -> bool:
    """Whether a template looks at that field of anything."""
    return re.search(rf"\.{name}\b|['\"]{name}['\"]", source) is not None
