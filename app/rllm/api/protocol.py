"""The requests of the OpenAI API as this server understands them.

Fields are those that are honoured, no others: `rllm.api.field_table` knows the rest. Limits that depend
on the model or on the settings are checked in `rllm.api.convert`, and written into the OpenAPI document
by `rllm.api.openapi`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rllm.api.field_table import TABLE
from rllm.api.fields import (
    Content,
    Integer,
    LogitBias,
    MaxTokens,
    MaxTokensOrNone,
    Prompts,
    Role,
    Stop,
    TokenIds,
)
from rllm.api.known_fields import Place, refuse

_Finite = Field(allow_inf_nan=False)


class WireModel(BaseModel):
    """Null asks for nothing in every field, known or not."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, json_schema_extra={"additionalProperties": {"type": "null"}}
    )
    place: ClassVar[Place | None] = None
    """Where its fields stand in the table of known ones."""

    @model_validator(mode="before")
    @classmethod
    def _what_asks_for_something(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if cls.place is None:
            return {name: value for name, value in data.items() if value is not None}
        return TABLE.pick(cls.place, data)


class StreamOptions(WireModel):
    place = Place.STREAM_OPTIONS
    include_usage: bool | None = Field(None, description="End the stream with a chunk that holds the usage.")


class GenerationRequest(WireModel):
    """What chat and text completions have in common."""

    model: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="A name from /v1/models; without one, the first model answers."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = Field(None, description="Only with `stream`.")
    max_tokens: MaxTokens | None = Field(
        None, description="Cut to what the context has room for. -1: as many as that."
    )
    min_tokens: Annotated[int, Field(ge=0, le=2**31 - 1), Integer] | None = Field(
        None, description="No end-of-text token and no stop string before so many tokens."
    )
    temperature: Annotated[float, Field(ge=0, le=2), _Finite] | None = Field(None, description="0 is greedy.")
    top_p: Annotated[float, Field(ge=0, le=1), _Finite] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1_000_000), Integer] | None = Field(
        None, description="0 or -1: off."
    )
    min_p: Annotated[float, Field(ge=0, le=1), _Finite] | None = None
    typical_p: Annotated[float, Field(ge=0, le=1), _Finite] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.1, le=10), _Finite] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2), _Finite] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2), _Finite] | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1), Integer] | None = Field(
        None, description="The same seed gives the same text on a quiet server. Choice i of n uses seed + i."
    )
    stop: Stop = ()
    logit_bias: LogitBias = ()
    prompt_logprobs: Annotated[int, Field(ge=0, le=20), Integer] | None = Field(
        None,
        description="Also report each token of the prompt, and so many rivals of it. Not with stream.",
    )
    n: Annotated[int, Field(ge=1), Integer] | None = None
    ignore_eos: bool | None = None
    priority: Annotated[int, Field(ge=0, le=1000), Integer] | None = Field(
        None, description="Lower runs earlier. 0 is the best there is for a caller's key."
    )
    cache_salt: Annotated[str, Field(max_length=128)] | None = Field(
        None, description="Prefixes are shared only between requests with the same salt."
    )

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Self:
        if self.stream_options and not self.stream and any(dict(self.stream_options).values()):
            raise refuse("stream_options is allowed only where stream is true", param="stream_options")
        if self.stream and self.prompt_logprobs is not None:
            raise refuse("prompt_logprobs is reported only without stream", param="prompt_logprobs")
        return self

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


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


class ChatCompletionRequest(GenerationRequest):
    place = Place.CHAT
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=10_000)]
    max_completion_tokens: MaxTokens | None = Field(
        None, description="The same as max_tokens; of both the smaller one holds."
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

    @property
    def token_limit(self) -> int | None:
        limits = [limit for limit in (self.max_tokens, self.max_completion_tokens) if limit is not None]
        return min(limits, default=None)

    @property
    def num_logprobs(self) -> int:
        """-1: none."""
        return (self.top_logprobs or 0) if self.logprobs else -1

    @property
    def num_scored(self) -> int:
        """How many rivals of each token of the prompt are wanted; -1: not even its log probability."""
        return -1 if self.prompt_logprobs is None else self.prompt_logprobs


class CompletionRequest(GenerationRequest):
    place = Place.COMPLETION
    prompt: Prompts
    max_tokens: MaxTokensOrNone | None = Field(
        None, description="Cut to what the context has room for. -1: as many as that. 0: no answer."
    )
    echo: bool | None = Field(
        None, description="Begin each answer with its prompt, with `logprobs` with those of its tokens, too."
    )
    logprobs: Annotated[int, Field(ge=0, le=20), Integer] | None = Field(
        None, description="How many rivals of each token are reported beside it."
    )

    @property
    def token_limit(self) -> int | None:
        return self.max_tokens

    @property
    def num_logprobs(self) -> int:
        return -1 if self.logprobs is None else self.logprobs

    @property
    def num_scored(self) -> int:
        """How many rivals of each token of the prompt are wanted; -1: not even its log probability."""
        asked = -1 if self.prompt_logprobs is None else self.prompt_logprobs
        return max(asked, self.num_logprobs) if self.echo else asked


class TokenizeRequest(WireModel):
    """llama-server's ``content``, vLLM's ``prompt``, or a chat's ``messages``: exactly one of them."""

    model: Annotated[str, Field(max_length=512)] | None = None
    content: str | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=10_000)] | None = None
    add_special: bool | None = Field(
        None,
        description="Add the tokens that begin a text. Default: as the two servers do, on for `prompt` only.",
    )
    add_special_tokens: bool | None = Field(None, description="vLLM's name for add_special.")
    parse_special: bool | None = Field(None, description="Read control tokens written as text. Default: on.")
    with_pieces: bool | None = Field(None, description="Return the text of each token beside its id.")
    return_token_strs: bool | None = Field(None, description="vLLM's way: return the texts in `token_strs`.")
    add_generation_prompt: bool | None = Field(
        None, description="With `messages`: end where the assistant is to speak. Default: true."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("content", "prompt", "messages") if getattr(self, name) is not None]
        if len(given) != 1:
            raise refuse(
                f"exactly one of content, prompt and messages is needed; got {given or 'none'}",
                param="content",
            )
        if (
            self.messages is not None
            and (self.add_special, self.add_special_tokens, self.parse_special) != (None,) * 3
        ):
            raise refuse("with messages the chat template decides about special tokens", param="messages")
        return self


class DetokenizeRequest(WireModel):
    model: Annotated[str, Field(max_length=512)] | None = None
    tokens: TokenIds
