"""The answers as types, and what the OpenAPI document says of these routes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from rllm.api.doors.documented import AnswerModel, ErrorBody, errors


class Version(AnswerModel):
    version: str


class Load(AnswerModel):
    server_load: int


class Props(AnswerModel):
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


class TokenizerInfo(AnswerModel):
    tokenizer_class: str
    vocab_size: int
    model_max_length: int
    bos_token: str
    eos_token: str
    add_bos_token: bool
    chat_template: str | None


class NextToken(AnswerModel):
    has_next_token: bool
    n_remain: int
    n_decoded: int


class Slot(AnswerModel):
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


class Alive(AnswerModel):
    status: Literal["alive"]


class FallbackReport(AnswerModel):
    options: dict[str, str]
    reason: str
    certain: bool


class HealthReport(AnswerModel):
    status: str
    instances: dict[str, str]
    fallbacks: dict[str, FallbackReport] | None = None
    """Options that instances compute only with on this machine."""
    tuned: dict[str, dict[str, str | int]] | None = None
    """Options that were measured to be fastest on this machine, by instance."""
    not_served: dict[str, str] | None = None
    """Why, by model: these could not be started."""
    error: ErrorBody | None = None


def documented_health(answer: type[BaseModel], *, unready: bool = False) -> dict[str, Any]:
    responses: dict[int, dict[str, Any]] = {200: {"model": answer}}
    if unready:
        responses[503] = {"model": HealthReport, "description": "Not ready."}
    return {"responses": responses}


def documented_slots(slot: type[BaseModel]) -> dict[str, Any]:
    fail = {
        "name": "fail_on_no_slot",
        "in": "query",
        "required": False,
        "description": "With any value: 503 where no slot is free.",
        "schema": {"type": "string"},
    }
    return {
        "responses": {200: {"model": list[slot]}, **errors(401, 403, 503)},  # type: ignore[valid-type]
        "openapi_extra": {"parameters": [fail]},
    }


def model_parameter(route: dict[str, Any]) -> dict[str, Any]:
    """``route`` with ?model=NAME."""
    name = {"name": "model", "in": "query", "required": False, "schema": {"type": "string"}}
    return {**route, "openapi_extra": {"parameters": [name]}}


def documented_metrics() -> dict[str, Any]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {"responses": {200: {"description": "Prometheus text", "content": text}, **errors(401, 403)}}
