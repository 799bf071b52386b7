"""POST /v1/chat/completions: the request, and what it means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from rllm.api.answer.request import Request
from rllm.api.doors.openai.wire import GenerationRequest
from rllm.api.doors.openai_chat.tools import Call, CalledFunction, Function, Tool, allowed
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
        None, description="With role `tool`: of the call whose result this is."
    )
    tool_calls: Annotated[list[Call], Field(max_length=256)] | None = Field(
        None, description="Of an assistant's message: what it called."
    )
    function_call: CalledFunction | None = Field(None, description="The older form of `tool_calls`.")
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

    def to_message(self) -> Message:
        """The older form of calls has no ids: a function's result belongs to its last call."""
        calls = [call.told() for call in self.tool_calls or ()]
        if self.function_call is not None:
            function = self.function_call
            calls.append({"id": function.name, "type": "function", "function": function.model_dump()})
        is_older = self.role == "function"
        return Message(
            role="tool" if is_older else self.role,
            text=self.text,
            name=self.name,
            tool_call_id=self.name if is_older else self.tool_call_id,
            tool_calls=calls,
            reasoning_content=self.reasoning_content,
            reasoning=self.reasoning,
            thinking=self.thinking,
        )

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


class ToolOptions(WireModel):
    """What the model may call, and how long it thinks."""

    tools: Annotated[list[Tool], Field(max_length=512)] | None = None
    tool_choice: Any = Field(
        None, description="`auto`, `none`, or allowed_tools with mode `auto`; no call can be forced yet."
    )
    parallel_tool_calls: bool | None = Field(
        None, description="With false, only the first call of an answer is one; what follows is text."
    )
    functions: Annotated[list[Function], Field(max_length=512)] | None = Field(
        None, description="The older form of `tools`."
    )
    function_call: Any = Field(None, description="The older form of `tool_choice`.")
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = Field(
        None, description="Where the model's chat template has use for it."
    )
    include_reasoning: bool | None = Field(None, description="With false, thoughts are left out.")

    @model_validator(mode="after")
    def _choice_can_be_kept(self) -> Self:
        if self.tools and self.functions:
            raise refuse("functions is the older form of tools; give one of them", param="functions")
        self.allowed()
        return self

    def allowed(self) -> list[Function]:
        """What may be called."""
        if self.functions is not None or self.function_call is not None:
            return allowed(self.functions or [], self.function_call, field="function_call")
        return allowed([tool.function for tool in self.tools or ()], self.tool_choice, field="tool_choice")


class ChatCompletionRequest(GenerationRequest, TemplateOptions, ToolOptions):
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


_NO_TOOLS = ToolOptions.model_validate({})


def to_chat(
    messages: Sequence[ChatMessage], options: TemplateOptions, tools: ToolOptions = _NO_TOOLS
) -> Chat:
    return Chat(
        messages=[message.to_message() for message in messages],
        tools=[function.told() for function in tools.allowed()],
        effort=tools.reasoning_effort,
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
        prompts=to_chat(wire.messages, wire, wire),
        functions={function.name: function.parameters or {} for function in wire.allowed()},
        parallel_calls=wire.parallel_tool_calls is not False,
        include_reasoning=wire.include_reasoning is not False,
        id_prefix="chatcmpl",
        prompts_name="messages",
        logprobs_name="top_logprobs",
        echoed=last.text if wire.echo and last.role == "assistant" else "",
        num_logprobs=(wire.top_logprobs or 0) if wire.logprobs else -1,
        num_scored=shared["num_prompt_logprobs"],
        **shared,
    )
