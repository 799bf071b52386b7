"""POST /v1/chat/completions: the request, and what it means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from rllm.api.answer.request import Request
from rllm.api.doors.openai.wire import GenerationRequest
from rllm.api.fields.known_fields import Place, refuse
from rllm.api.fields.types import Content, Integer, MaxTokens, Role, Variables
from rllm.api.fields.wire import Limits, WireModel
from rllm.api.text.messages import Chat, Message


class ChatMessage(WireModel):
    place = Place.MESSAGE
    role: Role
    content: Content | None = Field(None, description="Only an assistant's message may be without.")
    name: Annotated[str, Field(max_length=256)] | None = Field(
        None, description="Handed to the model's chat template, where that uses it."
    )
    tool_call_id: Annotated[str, Field(max_length=128)] | None = Field(
        None, description="With role `tool`, handed to the chat template."
    )
    refusal: str | None = Field(None, description="Of an earlier answer, which had no other content.")
    reasoning_content: str | None = Field(None, description="Handed to the chat template, as the next two.")
    reasoning: str | None = None
    thinking: str | None = None

    @model_validator(mode="after")
    def _has_content(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise refuse(
                "Missing required parameter: '{path}'.", field="content", code="missing_required_parameter"
            )
        return self

    @property
    def text(self) -> str:
        return self.content or self.refusal or ""

    @classmethod
    def write_limits(cls, schema: dict[str, Any], limits: Limits) -> None:
        """Only an assistant's message may be without content."""
        content = schema["properties"]["content"]["anyOf"]
        text = next(kind for kind in content if kind != {"type": "null"})
        schema["anyOf"] = [
            {"required": ["content"], "properties": {"content": text}},
            {"properties": {"role": {"const": "assistant"}}},
        ]


class TemplateOptions(WireModel):
    """What a chat template is told beside the messages."""

    add_generation_prompt: bool | None = Field(
        None, description="With false, the prompt ends with the last message."
    )
    continue_final_message: bool | None = Field(
        None, description="The answer goes on with the last message, which is left open."
    )
    chat_template_kwargs: Variables | None = Field(
        None, description="Further variables for the model's chat template."
    )
    documents: Annotated[list[dict[str, Any]], Field(max_length=1000)] | None = Field(
        None, description="Only where the model's chat template uses it."
    )
    chat_template: str | None = Field(
        None, description="Another template, where the operator allows it (--trust-request-chat-template)."
    )

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.continue_final_message and self.add_generation_prompt:
            raise refuse(
                "continue_final_message goes on with the last message, add_generation_prompt begins another",
                param="continue_final_message",
            )
        return self


class ChatCompletionRequest(GenerationRequest, TemplateOptions):
    place = Place.CHAT
    example: ClassVar = {
        "messages": [{"role": "user", "content": "What is the capital of South Korea?"}],
        "max_tokens": 16,
    }
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=10_000)]
    max_completion_tokens: MaxTokens | None = Field(
        None, description="The same as max_tokens; of both the smaller one holds."
    )
    echo: bool | None = Field(
        None, description="Begin each answer with the last message, if it is the assistant's."
    )
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20), Integer] | None = Field(
        None, description="How many rivals of each token are reported, with `logprobs`."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise refuse(
                f"top_logprobs is {self.top_logprobs} but logprobs is not true; set it to true",
                param="top_logprobs",
            )
        return self


def to_chat(messages: Sequence[ChatMessage], options: TemplateOptions) -> Chat:
    return Chat(
        messages=[
            Message(
                role=message.role,
                text=message.text,
                name=message.name,
                tool_call_id=message.tool_call_id,
                reasoning_content=message.reasoning_content,
                reasoning=message.reasoning,
                thinking=message.thinking,
            )
            for message in messages
        ],
        add_generation_prompt=options.add_generation_prompt,
        continue_final_message=bool(options.continue_final_message),
        variables=options.chat_template_kwargs or {},
        documents=options.documents or (),
        template=options.chat_template or "",
    )


def to_request(wire: ChatCompletionRequest) -> Request:
    shared, last = wire.shared(), wire.messages[-1]
    limits = [limit for limit in (wire.max_tokens, wire.max_completion_tokens) if limit is not None]
    shared["max_tokens"] = min(limits, default=None)
    return Request(
        prompts=to_chat(wire.messages, wire),
        id_prefix="chatcmpl",
        prompts_name="messages",
        logprobs_name="top_logprobs",
        echoed=last.text if wire.echo and last.role == "assistant" else "",
        num_logprobs=(wire.top_logprobs or 0) if wire.logprobs else -1,
        num_scored=shared["num_prompt_logprobs"],
        **shared,
    )
