"""What the OpenAPI document says of a route: its answers, its errors, its request."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class AnswerModel(BaseModel):
    """Only the document and the tests use answers as types: no answer passes through them."""

    model_config = ConfigDict(extra="forbid")


class ErrorBody(AnswerModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Error(AnswerModel):
    error: ErrorBody


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


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
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
    return {"responses": {200: ok, **errors(*statuses)}, "openapi_extra": extra}
