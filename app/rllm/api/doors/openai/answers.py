"""What OpenAI's two answers have in common, as types: for the OpenAPI document and the tests."""

from __future__ import annotations

from rllm.api.doors.documented import AnswerModel


class TokenDetails(AnswerModel):
    cached_tokens: int


class CompletionDetails(AnswerModel):
    reasoning_tokens: int


class Usage(AnswerModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: TokenDetails
    completion_tokens_details: CompletionDetails | None = None


class Timings(AnswerModel):
    """llama-server's figures of one request."""

    cache_n: int
    queue_ms: float
    prompt_n: int
    prompt_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float


class RankedLogprob(AnswerModel):
    logprob: float
    rank: int
    decoded_token: str


PromptLogprobs = list[dict[str, RankedLogprob] | None]
"""vLLM's: by token id, for each token of the prompt but the first."""
