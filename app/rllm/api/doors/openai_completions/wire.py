"""POST /v1/completions: the request, and what it means."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from rllm.api.answer.request import Request
from rllm.api.doors.openai.wire import GenerationRequest
from rllm.api.fields.known_fields import Place
from rllm.api.fields.types import Integer, MaxTokensOrNone, Prompts
from rllm.api.fields.wire import Limits

_MAX_TOKENS = 16
"""OpenAI's default. A chat answer may fill the context."""


class CompletionRequest(GenerationRequest):
    place = Place.COMPLETION
    example: ClassVar = {"prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
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

    @classmethod
    def write_limits(cls, schema: dict[str, Any], limits: Limits) -> None:
        super().write_limits(schema, limits)
        _, texts, ids, lists_of_ids = schema["properties"]["prompt"]["anyOf"]
        texts["maxItems"] = lists_of_ids["maxItems"] = limits.settings.counts.prompts
        if limits.models:
            ids["maxItems"] = lists_of_ids["items"]["maxItems"] = max(limits.context - 1, 1)
            for tokens in (ids, lists_of_ids["items"]):
                tokens["items"]["anyOf"][0]["maximum"] = limits.vocab_size - 1


def to_request(wire: CompletionRequest) -> Request:
    shared = wire.shared()
    num_logprobs = -1 if wire.logprobs is None else wire.logprobs
    asked = shared["num_prompt_logprobs"]
    return Request(
        prompts=wire.prompt,
        id_prefix="cmpl",
        add_special_tokens=wire.add_special_tokens,
        echoes_prompts=bool(wire.echo),
        default_max_tokens=_MAX_TOKENS,
        num_logprobs=num_logprobs,
        num_scored=max(asked, num_logprobs) if wire.echo else asked,
        **shared,
    )
