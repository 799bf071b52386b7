"""The answers as types: only the OpenAPI document and the tests use them, no answer passes through them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorBody(_Answer):
    message: str
    type: str
    param: str | None
    code: str | None


class Error(_Answer):
    error: ErrorBody


class TokenDetails(_Answer):
    cached_tokens: int


class Usage(_Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: TokenDetails


class Timings(_Answer):
    """llama-server's figures of one request."""

    cache_n: int
    queue_ms: float
    prompt_n: int
    prompt_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float


class TopLogprob(_Answer):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class RankedLogprob(_Answer):
    logprob: float
    rank: int
    decoded_token: str


PromptLogprobs = list[dict[str, RankedLogprob] | None]
"""vLLM's: by token id, for each token of the prompt but the first."""


class ChatLogprobs(_Answer):
    content: list[TokenLogprob]
    refusal: None


class AssistantMessage(_Answer):
    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(_Answer):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]
    token_ids: list[int] | None = None


class ChatCompletion(_Answer):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage
    timings: Timings | None = None
    prompt_logprobs: PromptLogprobs | None = None
    prompt_token_ids: list[int] | None = None


class CompletionLogprobs(_Answer):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(_Answer):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"]
    prompt_logprobs: PromptLogprobs | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class Completion(_Answer):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: Usage
    timings: Timings | None = None


class ModelMeta(_Answer):
    description: str
    architecture: str
    n_params: int
    size: int
    n_vocab: int
    n_ctx_train: int


class Model(_Answer):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    aliases: list[str]
    max_model_len: int
    meta: ModelMeta


class ModelList(_Answer):
    object: Literal["list"]
    data: list[Model]


class Piece(_Answer):
    id: int
    piece: str


class Tokenized(_Answer):
    tokens: list[int] | list[Piece]
    count: int
    max_model_len: int
    token_strs: list[str] | None = None


class Version(_Answer):
    version: str


class Load(_Answer):
    server_load: int


class Props(_Answer):
    default_generation_settings: dict[str, Any]
    total_slots: int
    model_alias: str
    model_path: str
    modalities: dict[str, bool]
    chat_template: str
    bos_token: str
    eos_token: str
    build_info: str
    is_sleeping: bool


class TokenizerInfo(_Answer):
    tokenizer_class: str
    vocab_size: int
    model_max_length: int
    bos_token: str
    eos_token: str
    add_bos_token: bool
    chat_template: str | None


class NextToken(_Answer):
    has_next_token: bool
    n_remain: int
    n_decoded: int


class Slot(_Answer):
    id: int
    model: str
    instance: str
    n_ctx: int
    speculative: bool
    is_processing: bool
    phase: str
    request_id: str
    n_prompt_tokens: int
    n_prompt_tokens_processed: int
    n_prompt_tokens_cache: int
    next_token: list[NextToken]


class Prompted(_Answer):
    prompt: str


class Counted(_Answer):
    input_tokens: int


class Rendered(_Answer):
    request_id: str
    model: str
    token_ids: list[int]
    stream: bool
    sampling_params: dict[str, Any]


class Detokenized(_Answer):
    content: str
    prompt: str


class Alive(_Answer):
    status: Literal["alive"]


class FallbackReport(_Answer):
    options: dict[str, str]
    reason: str
    certain: bool


class HealthReport(_Answer):
    status: str
    instances: dict[str, str]
    fallbacks: dict[str, FallbackReport] | None = None
    """Options that instances compute only with on this machine."""
    tuned: dict[str, dict[str, str | int]] | None = None
    """Options that were measured to be fastest on this machine, by instance."""
    not_served: dict[str, str] | None = None
    """Why, by model: these could not be started."""
    error: ErrorBody | None = None


_ERRORS = {
    400: "The request is wrong; the message names the field, the value and the limit.",
    401: "No key, or a wrong one.",
    403: "The key is a caller's, and this shows what all callers do.",
    404: "No such model.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The content type is not application/json.",
    429: "The key's own limit is reached; Retry-After says when to come back.",
    500: "The engine failed.",
    503: "The server protects itself: queue full, draining, or nothing healthy.",
    504: "A deadline passed after work had begun.",
}
_EVENTS = {"text/event-stream": {"schema": {"type": "string"}}}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Error, "description": _ERRORS[status]} for status in statuses}


def documented(
    answer: Any, request: str | None = None, *, streams: bool = False, missing: bool = False
) -> dict[str, Any]:
    """Arguments for a route: what it may answer, and the name of its request's schema.

    Routes read their bodies themselves (see `rllm.api.http.json_body`), so FastAPI cannot know the latter.
    """
    ok: dict[str, Any] = {"model": answer}
    if streams:
        ok["content"] = _EVENTS
    statuses = [401] + ([404] if missing else [])
    extra = None
    if request is not None:
        statuses = [400, 401, 404, 408, 413, 415, 500, 503]
        schema = {"$ref": f"#/components/schemas/{request}"}
        extra = {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
    if streams:
        statuses += [429, 504]
    return {"responses": {200: ok, **_errors(*statuses)}, "openapi_extra": extra}


def documented_health(answer: type[BaseModel], *, unready: bool = False) -> dict[str, Any]:
    responses: dict[int, dict[str, Any]] = {200: {"model": answer}}
    if unready:
        responses[503] = {"model": HealthReport, "description": "Not ready."}
    return {"responses": responses}


def documented_state() -> dict[str, Any]:
    since = {
        "name": "since",
        "in": "query",
        "required": False,
        "description": "The `time` of the last answer: of history and spans, only what is newer is sent.",
        "schema": {"type": "number", "minimum": 0},
    }
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/LiveState"}}}
    ok = {"description": "The state now", "content": body}
    return {"responses": {200: ok, **_errors(400, 401, 403)}, "openapi_extra": {"parameters": [since]}}


def documented_slots(slot: type[BaseModel]) -> dict[str, Any]:
    fail = {
        "name": "fail_on_no_slot",
        "in": "query",
        "required": False,
        "description": "With any value: 503 where no slot is free.",
        "schema": {"type": "string"},
    }
    return {
        "responses": {200: {"model": list[slot]}, **_errors(401, 403, 503)},  # type: ignore[valid-type]
        "openapi_extra": {"parameters": [fail]},
    }


def model_parameter(route: dict[str, Any]) -> dict[str, Any]:
    """``route`` with ?model=NAME."""
    name = {"name": "model", "in": "query", "required": False, "schema": {"type": "string"}}
    return {**route, "openapi_extra": {"parameters": [name]}}


def documented_metrics() -> dict[str, Any]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {"responses": {200: {"description": "Prometheus text", "content": text}, **_errors(401, 403)}}
