"""Writing server-sent events to one client: keep-alive comments, and an end to clients that do not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Scope, Send

from rllm import background

KEEPALIVE = b": keepalive\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # asks nginx not to collect the events
]


def body_sender(scope: Scope) -> Send:
    """The server's own `send`, kept by `rllm.api.http.middleware`, for what follows the status line.

    No middleware does anything to that, and each of them would cost every token a call.
    """
    send: Send = scope["extensions"]["rllm.send_body"]
    return send


class ClientTooSlow(Exception):
    """A write was stuck for longer than allowed."""


class EventStream:
    """One writer writes; a timer beside it only looks at the clock, so that a token costs no timer."""

    def __init__(self, send: Send, send_body: Send) -> None:
        self._send = send
        self._send_body = send_body
        self._now = asyncio.get_running_loop().time
        self._started = False
        self._stuck_since: float | None = None
        self._last_write = self._now()

    async def write(self, data: bytes, *, last: bool = False) -> None:
        self._stuck_since = self._now()
        if not self._started:
            self._started = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await self._send_body({"type": "http.response.body", "body": data, "more_body": not last})
        self._stuck_since = None
        self._last_write = self._now()

    async def watch(self, guard: asyncio.Timeout, keepalive_s: float, slow_s: float) -> None:
        """Comment after ``keepalive_s`` of silence; end the guard when a write is stuck. 0: never."""
        periods = [period for period in (keepalive_s, slow_s / 2) if period > 0]
        while periods:
            await asyncio.sleep(min(periods))
            now = self._now()
            if self._stuck_since is not None:
                if 0 < slow_s <= now - self._stuck_since:
                    guard.reschedule(now)
                    return
            elif self._started and 0 < keepalive_s <= now - self._last_write:
                await self._comment(guard, slow_s)

    async def _comment(self, guard: asyncio.Timeout, slow_s: float) -> None:
        try:
            async with asyncio.timeout(slow_s or None):
                await self._send_body({"type": "http.response.body", "body": KEEPALIVE, "more_body": True})
            self._last_write = self._now()
        except TimeoutError:
            guard.reschedule(self._now())


@asynccontextmanager
async def event_stream(
    send: Send, send_body: Send, *, keepalive_s: float, slow_s: float
) -> AsyncIterator[EventStream]:
    """``send`` takes the status line and ``send_body`` the events.

    Raises:
        ClientTooSlow: out of whatever the body awaits.
    """
    output = EventStream(send, send_body)
    guard = asyncio.timeout(None)
    try:
        async with guard:
            watcher = background.start(output.watch(guard, keepalive_s, slow_s), name="event-stream-watcher")
            try:
                yield output
            finally:
                watcher.cancel()
    except TimeoutError:
        if guard.expired():
            raise ClientTooSlow from None
        raise
