"""The requests of the OpenAI API as this server understands them.

Fields are those that are honoured, no others: `rllm.api.fields.field_table` knows the rest. Limits that
depend on the model or on the settings are checked in `rllm.api.answer.convert`, and written into the OpenAPI
document by `rllm.api.doors.docs.openapi`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rllm.api.fields.field_table import TABLE
from rllm.api.fields.known_fields import Place, refuse
from rllm.api.fields.types import (
    Content,
    Integer,
    LogitBias,
    MaxTokens,
    MaxTokensOrNone,
    Prompts,
    RequestId,
    Role,
    Stop,
    TokenIds,
    TokenList,
    Variables,
    Word,
)

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
    continuous_usage_stats: bool | None = Field(None, description="Every chunk holds the usage so far.")


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
    stop_token_ids: TokenList | None = Field(None, description="Tokens that end the answer, too.")
    include_stop_str_in_output: bool | None = Field(
        None, description="What ended the answer, a stop string or a token's text, is a part of it."
    )
    skip_special_tokens: bool | None = Field(None, description="With false, control tokens are text.")
    logit_bias: LogitBias = ()
    allowed_token_ids: Annotated[TokenList, Field(min_length=1)] | None = Field(
        None, description="Nothing else is drawn."
    )
    bad_words: Annotated[list[Word], Field(max_length=256)] | None = Field(
        None, description="Texts that are not said, whether a space is before them or not."
    )
    repeat_last_n: Annotated[int, Field(ge=-1, le=2**31 - 1), Integer] | None = Field(
        None, description="How many tokens penalties look back on. -1: all; 0: none."
    )
    prompt_logprobs: Annotated[int, Field(ge=0, le=20), Integer] | None = Field(
        None,
        description="Also report each token of the prompt, and so many rivals of it. Not with stream.",
    )
    n: Annotated[int, Field(ge=1), Integer] | None = None
    ignore_eos: bool | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=2**31 - 1), Integer] | None = Field(
        None,
        description="Keep so many of the prompt's tokens. -1: as many as leave room for the answer.",
        json_schema_extra={"not": {"const": 0}},
    )
    truncation_side: Literal["left", "right"] | None = Field(
        None, description="Where tokens are cut off; on the left, if nothing is said."
    )
    cache_prompt: bool | None = Field(None, description="With false, no cached prefix is used.")
    return_token_ids: bool | None = Field(None, description="Report the ids of prompt and answer.")
    return_tokens_as_token_ids: bool | None = Field(
        None, description="In log probabilities, tokens are named 'token_id:N'."
    )
    timings_per_token: bool | None = Field(None, description="Every chunk of a stream has timings.")
    return_progress: bool | None = Field(
        None, description="A stream says how much of the prompt is computed."
    )
    stream_interval: Annotated[int, Field(ge=1, le=2**31 - 1), Integer] | None = Field(
        None, description="A chunk of a stream has at least so many tokens, but for the first and the last."
    )
    request_id: RequestId | None = Field(None, description="The end of the answer's id.")
    priority: Annotated[int, Field(ge=0, le=1000), Integer] | None = Field(
        None, description="Lower runs earlier. 0 is the best there is for a caller's key."
    )
    cache_salt: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        None, description="Prefixes are shared only between requests with the same salt."
    )

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> Self:
        if self.stream_options and self.stream_options.model_fields_set and not self.stream:
            raise refuse("stream_options is allowed only where stream is true", param="stream_options")
        if self.stream and self.prompt_logprobs is not None:
            raise refuse("prompt_logprobs is reported only without stream", param="prompt_logprobs")
        if self.truncate_prompt_tokens == 0:
            raise refuse(
                "truncate_prompt_tokens must be -1 or at least 1; got 0", param="truncate_prompt_tokens"
            )
        return self

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        return self.include_usage and bool(self.stream_options and self.stream_options.continuous_usage_stats)

    @property
    def reports_steps(self) -> bool:
        """A stream says how things stand."""
        return bool(self.continuous_usage or self.timings_per_token or self.return_progress)


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

    @property
    def echoed(self) -> str:
        """The beginning of each answer that the request has brought along."""
        last = self.messages[-1]
        return last.text if self.echo and last.role == "assistant" else ""

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
    add_special_tokens: bool | None = Field(
        None, description="Begin a text with BOS, where the model wants that. Default: unless it is there."
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


class TokenizeRequest(TemplateOptions):
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
