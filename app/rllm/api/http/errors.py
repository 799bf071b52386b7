"""The one table from errors to HTTP, and OpenAI's envelope.

    {"error": {"message": str, "type": str, "param": str | null, "code": str | null}}

``x-should-retry`` tells OpenAI's clients what the status alone does not: a deadline that passed after
work had begun (504) or a bug of ours would only be met again, an engine fault or a full queue would not.
"""

from __future__ import annotations

import http
import math
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.exceptions import HTTPException

from rllm.errors import (
    BadRequest,
    BodyTooLarge,
    BodyTooSlow,
    EngineError,
    Forbidden,
    NotAuthorized,
    NotFound,
    Overloaded,
    RateLimited,
    Refused,
    RllmError,
    TimedOut,
    WrongMediaType,
)


@dataclass(frozen=True, slots=True)
class Rule:
    status: int
    type: str
    retry: bool


_TABLE: dict[type[RllmError], Rule] = {
    BodyTooLarge: Rule(413, "invalid_request_error", retry=False),
    BodyTooSlow: Rule(408, "invalid_request_error", retry=True),
    WrongMediaType: Rule(415, "invalid_request_error", retry=False),
    BadRequest: Rule(400, "invalid_request_error", retry=False),
    NotAuthorized: Rule(401, "authentication_error", retry=False),
    Forbidden: Rule(403, "permission_error", retry=False),
    NotFound: Rule(404, "invalid_request_error", retry=False),
    RateLimited: Rule(429, "rate_limit_error", retry=True),
    Overloaded: Rule(503, "service_unavailable_error", retry=True),
    Refused: Rule(503, "service_unavailable_error", retry=True),
    TimedOut: Rule(504, "timeout_error", retry=False),
    EngineError: Rule(500, "server_error", retry=True),
    RllmError: Rule(500, "server_error", retry=False),
}


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An error as it goes over the wire, whatever it was before."""

    status: int
    message: str
    type: str
    param: str | None
    code: str | None
    headers: tuple[tuple[str, str], ...] = ()

    def envelope(self) -> dict[str, Any]:
        fields = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": fields}

    def body(self) -> bytes:
        return orjson.dumps(self.envelope())


def rule_of(error: RllmError) -> Rule:
    for cls in type(error).__mro__:
        if cls in _TABLE:
            return _TABLE[cls]
    raise AssertionError("unreachable: the root of the tree is in the table")


def answer_of(error: RllmError) -> ErrorAnswer:
    rule = rule_of(error)
    headers = [("x-should-retry", "true" if rule.retry else "false")]
    if error.retry_after_s is not None:
        headers.append(("retry-after", str(max(1, math.ceil(error.retry_after_s)))))
        headers.append(("retry-after-ms", str(max(1, math.ceil(error.retry_after_s * 1000)))))
    given = {name for name, _ in error.headers}
    headers = [pair for pair in headers if pair[0] not in given] + list(error.headers)
    if rule.status == 401:
        headers.append(("www-authenticate", "Bearer"))
    return ErrorAnswer(rule.status, str(error), rule.type, error.param, error.code, tuple(headers))


def answer_of_http(error: HTTPException, method: str, path: str) -> ErrorAnswer:
    """Starlette's own refusals: no such route, wrong method."""
    messages = {
        404: f"Unknown request URL: {method} {path}",
        405: f"Method {method} is not allowed for {path}",
    }
    phrase = http.HTTPStatus(error.status_code).phrase
    code = phrase.lower().replace(" ", "_")
    kind = "invalid_request_error" if error.status_code < 500 else "server_error"
    headers = (*dict(error.headers or {}).items(), ("x-should-retry", "false"))
    return ErrorAnswer(error.status_code, messages.get(error.status_code, phrase), kind, None, code, headers)


def internal_error() -> ErrorAnswer:
    """What a client hears about a bug of ours. The details are in the log, under the request's id."""
    message = "The server had an internal error; the operator finds it in the log under the x-request-id."
    headers = (("x-should-retry", "false"),)
    return ErrorAnswer(500, message, "server_error", None, "internal_error", headers)
