"""What requests for chats and for completions have in common, as this server understands them.

Fields are those that are honoured, no others: `rllm.api.fields.field_table` knows the rest. Limits that
depend on the model or on the settings are checked in `rllm.api.answer.checks`, and written into the OpenAPI
document by `rllm.api.doors.docs.openapi`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from rllm.api.answer.request import Request
from rllm.api.doors.openai.constraints import asked
from rllm.api.fields.known_fields import Place, refuse
from rllm.api.fields.types import Integer, LogitBias, MaxTokens, RequestId, Stop, TokenList, Word
from rllm.api.fields.wire import Limits, WireModel, typed

_Finite = Field(allow_inf_nan=False)


class StreamOptions(WireModel):
    place = Place.STREAM_OPTIONS
    include_usage: bool | None = Field(None, description="End the stream with a chunk that holds the usage.")
    continuous_usage_stats: bool | None = Field(None, description="Every chunk holds the usage so far.")


class GenerationRequest(WireModel):
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
    response_format: dict[str, Any] | None = Field(
        None, description="What the answer must match: `json_object`, `json_schema` or `structural_tag`."
    )
    structured_outputs: dict[str, Any] | None = Field(
        None,
        description="The same in vLLM's words: one of `json`, `regex`, `choice`, `grammar`, `json_object`,"
        " `structural_tag`; and `disable_any_whitespace`.",
    )
    guided_json: dict[str, Any] | str | None = Field(None, description="A JSON schema.")
    guided_regex: str | None = Field(None, description="The whole answer matches it.")
    guided_choice: list[str] | None = Field(None, description="The answer is one of them.")
    guided_grammar: str | None = Field(None, description="GBNF or Lark.")
    json_schema: dict[str, Any] | None = Field(None, description="A JSON schema.")
    grammar: str | None = Field(None, description="GBNF or Lark.")
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

    def shared(self) -> dict[str, Any]:
        """Fields of a `Request` that have the same name here, as far as they were given, and what follows."""
        given = {name: getattr(self, name) for name in self.model_fields_set & _SHARED}
        given["num_prompt_logprobs"] = -1 if self.prompt_logprobs is None else self.prompt_logprobs
        given["reports_steps"] = self.reports_steps
        given["constraint"] = asked(self)
        return {name: value for name, value in given.items() if value is not None}

    @classmethod
    def write_limits(cls, schema: dict[str, Any], limits: Limits) -> None:
        fields, settings = schema["properties"], limits.settings
        typed(fields["n"], "integer")["maximum"] = settings.max_n
        text, several, _ = fields["stop"]["anyOf"]
        text["maxLength"] = several["items"]["maxLength"] = settings.max_stop_chars
        several["maxItems"] = settings.counts.stop_strings
        by_token, pairs, _ = fields["logit_bias"]["anyOf"]
        by_token["maxProperties"] = pairs["maxItems"] = settings.counts.logit_bias
        if not limits.models:
            return
        typed(fields["min_tokens"], "integer")["maximum"] = limits.context
        by_token["propertyNames"] = {"pattern": f"{_ids_below(limits.vocab_size)}|[^0-9]", "maxLength": 256}
        for listed in ("stop_token_ids", "allowed_token_ids"):
            typed(fields[listed], "array")["items"]["maximum"] = limits.vocab_size - 1


def _ids_below(count: int) -> str:
    """A pattern for decimal ids that surely exist: those with fewer digits than ``count``."""
    digits = max(len(str(count)) - 1, 1)
    return f"^(0|[1-9][0-9]{{0,{digits - 1}}})$" if count >= 10 else f"^[0-{count - 1}]$"


_SHARED = GenerationRequest.model_fields.keys() & set(Request.__struct_fields__)
