"""Pure ASGI middlewares (Starlette's BaseHTTPMiddleware would hide disconnects from the routes).

From the outside in: Paths, RequestScope, CORS where configured, Crowd, Hosts, Authorization, BodyLimit,
the application.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rllm.api.http.client import ClientGone
from rllm.api.http.encoded_body import EncodedBody, is_encoded
from rllm.api.http.errors import ErrorAnswer, answer_of, internal_error
from rllm.api.http.records import PROBES, Observer, RequestRecord, Starter
from rllm.api.http.sending import send_json
from rllm.errors import BodyTooLarge, Overloaded, RllmError

_logger = logging.getLogger("rllm.api")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def record_of(scope: Scope) -> RequestRecord:
    record: RequestRecord = scope["state"]["rllm_record"]
    return record


def caller_of(scope: Scope) -> str:
    """Whose request it is, for what callers share: their key, else their address."""
    client = scope.get("client")
    return record_of(scope).client_key or (client[0] if client else "")


async def send_error(send: Send, answer: ErrorAnswer) -> None:
    await send_json(send, answer.status, answer.body(), answer.headers)


class RequestScope:
    """Gives a request its id and its record, ends both, and is the last resort for our own bugs.

    The id is the client's ``x-request-id`` if that is short and harmless, else a new one; every answer
    carries it. The observer hears of every request exactly once, whatever happens to it.
    """

    def __init__(self, app: ASGIApp, *, observe: Observer, start: Starter) -> None:
        self._app = app
        self._observe = observe
        self._start = start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(_request_id(scope), scope["method"], scope["path"])
        scope.setdefault("state", {})["rllm_record"] = record
        scope.setdefault("extensions", {})["rllm.send_body"] = send
        self._start(record, scope["headers"])
        answering = _Answering(send, record)
        try:
            await self._app(scope, receive, answering.send)
        except ClientGone:
            record.status = 499
        except Exception:
            _logger.exception("internal error", extra={"request_id": record.request_id, "path": record.path})
            record.error_code = "internal_error"
            if answering.status:  # the answer has begun: the server closes the connection
                record.status = 500
                raise
            await send_error(answering.send, internal_error())
        finally:
            record.route = _route_of(scope)
            record.duration_s = record.elapsed_s()
            record.status = record.status or answering.status or 499
            self._observe(record)


class _Answering:
    """Adds the headers that every answer has, and remembers the status."""

    def __init__(self, send: Send, record: RequestRecord) -> None:
        self._send = send
        self._record = record
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            elapsed_ms = round(self._record.elapsed_s() * 1000)
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self._record.request_id.encode()),
                (b"openai-processing-ms", str(elapsed_ms).encode()),
                *((name.encode(), value.encode("latin-1")) for name, value in self._record.headers),
            ]
        await self._send(message)


class Crowd:
    """While there are too many connections, a request on a new one is refused unless it is a probe.

    See `rllm.api.http.connections`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope.get("extensions", {}).get("rllm.crowded") or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        error = Overloaded(
            "the server has as many connections as it can hold, and all of them are busy",
            code="too_many_connections",
            retry_after_s=1.0,
        )
        record_of(scope).error_code = error.code
        await send_error(send, answer_of(error))


class BodyLimit:
    """Refuses bodies beyond the limit: by their declared length at once, else where the limit is passed.

    A compressed body is decoded on its way, and what it becomes counts.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check_declared(_header(scope, b"content-length") or b"")
            coding = _header(scope, b"content-encoding") or b""
            decoded = EncodedBody(coding, self._max_bytes)(receive) if is_encoded(coding) else receive
        except RllmError as error:
            record_of(scope).error_code = error.code
            await send_error(send, answer_of(error))
            return
        await self._app(scope, self._counted(decoded), send)

    def _check_declared(self, length: bytes) -> None:
        if length.isdigit() and int(length) > self._max_bytes:
            raise self._error(f"the body has {int(length)} bytes")

    def _counted(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                raise self._error("the body is longer")
            return message

        return counted

    def _error(self, found: str) -> RllmError:
        return BodyTooLarge(f"the body may have at most {self._max_bytes} bytes; {found}")


def _request_id(scope: Scope) -> str:
    given = (_header(scope, b"x-request-id") or b"").decode("latin-1")
    return given if _REQUEST_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"


def _header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


def _route_of(scope: Scope) -> str:
    route = scope.get("route")
    return str(getattr(route, "path", "unmatched"))
