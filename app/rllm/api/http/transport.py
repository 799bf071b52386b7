"""uvicorn's HTTP protocol with the bounds it does not have: ``uvicorn.Config(http=HttpProtocol)``.

What is not the body must arrive in time and may not grow without end, and a client that has gone is noticed
in every state of its connection. And the application may cut a connection: ASGI has no word for it, and
closing politely keeps the socket and its buffer until a client that reads one byte a second has read
everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from rllm.api.http.connections import Connections, Room
from rllm.api.http.http_standards import Peer, StandardHttp, peer

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_PIECE = 8 * 1024
"""Bytes parsed at once."""


class HttpProtocol(StandardHttp):
    """Bodies are bounded in `api.http.middleware`, idle connections by uvicorn's own keep-alive timeout."""

    head_timeout_s = 30.0
    """From the connection, or the first byte of a further request, to the end of its headers."""
    max_head_bytes = 64 * 1024
    """Of everything but the body itself: a head, the size of a chunk, the trailers after the last one."""
    rest_timeout_s = 5.0
    """For the rest of a request that has its answer already. A client that only reads afterwards gets it."""

    _admitted = False
    _deadline: asyncio.TimerHandle | None = None
    _framing_bytes = 0
    """Since the last byte of a body, or the beginning of a head."""
    _watched: _WatchedFlow
    _unparsed: bytearray
    """What came behind a request that has to wait for its turn."""
    _in_head = False
    _in_message = False

    def __init__(self, *args: Any, connections: Connections | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections = connections or Connections(Room(2**31, 2**31))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn does
        super().connection_made(transport)
        self.flow = self._watched = _WatchedFlow(transport, self.loop, self._on_unread_end)
        self._unparsed = bytearray()
        self._expect(self.head_timeout_s)
        self._connections.entered(self)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect(self.head_timeout_s)
        self._in_head = self._in_message = True
        self._framing_bytes = 0
        self._admitted = self._admitted or not self._connections.are_too_many
        extensions: dict[str, Any] = {"rllm.abort": self.cut, "rllm.crowded": not self._admitted}
        self.scope["extensions"] = extensions

    def data_received(self, data: bytes) -> None:
        self._unparsed += data
        if self.pipeline:  # uvicorn resumes reading for the request before it, too
            self.flow.pause_reading()
        self._parse()

    def _parse(self) -> None:
        """Until a request waits for its turn: a read may hold ten thousand of them."""
        while self._unparsed and not self.pipeline and not self.transport.is_closing():
            piece = bytes(self._unparsed[:_PIECE])
            del self._unparsed[:_PIECE]
            self._framing_bytes += len(piece)
            super().data_received(piece)
            if self._framing_bytes > self.max_head_bytes and not self.transport.is_closing():
                self.send_400_response(f"The request's headers have more than {self.max_head_bytes} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """uvicorn would add trailers to the headers of a request that has begun, without end."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._framing_bytes = 0
        self._forget_deadline()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        super().on_body(body)

    def on_chunk_header(self) -> None:
        self._framing_bytes = 0

    def on_message_complete(self) -> None:
        self._in_message = False
        self._framing_bytes = 0
        self._forget_deadline()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """uvicorn would read the rest of an answered request for as long as it comes."""
        super().on_response_complete()
        self._parse()
        if self._running is not None and self._running.response_complete:
            self._connections.is_idle(self)
        if self._in_message and not self._in_head and self.cycle.response_complete:
            self._expect(self.rest_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.left(self)
        self._forget_deadline()
        self._watched.forget()
        self.pipeline.clear()
        self._end_running()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._connections.is_busy(self)
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        """Not into the middle of an answer that has begun."""
        self._forget_deadline()
        running = self._running
        if running is None or running.response_complete:
            super().send_400_response(msg)
        elif running is self.cycle and not running.response_started:
            self._end_running()
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def _on_unread_end(self, is_gone: bool) -> None:
        """As `eof_received`, where the end stands behind bytes that are not read yet."""
        if is_gone or not self.may_probe:
            self.transport.abort()
        else:
            self.probe()

    def _end_running(self) -> None:
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def _expect(self, timeout_s: float) -> None:
        """The end of what is being received."""
        self._forget_deadline()
        self._deadline = self.loop.call_later(timeout_s, self.transport.abort)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def cut(self) -> None:
        """With a reset: without it the kernel would go on offering what is in the socket's buffer."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()


class _WatchedFlow(FlowControl):
    """Asks the socket whether the client has gone while nothing is read from it: then no event would say so.

    uvicorn stops reading when a further request has come before its turn, or a body faster than it is used.
    """

    period_s = 0.2

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        on_end: Callable[[bool], None],
    ) -> None:
        """``on_end`` is called once, when the client has closed its side (False) or has gone (True)."""
        super().__init__(transport)
        self._loop = loop
        self._on_end = on_end
        self._timer: asyncio.TimerHandle | None = None

    def pause_reading(self) -> None:
        super().pause_reading()
        if self._timer is None:
            self._look_later()

    def resume_reading(self) -> None:
        self.forget()
        super().resume_reading()

    def forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_later(self) -> None:
        self._timer = self._loop.call_later(self.period_s, self._look)

    def _look(self) -> None:
        if self._transport.is_closing():
            return
        if (found := peer(self._transport)) is Peer.OPEN:
            self._look_later()
        else:
            self._on_end(found is Peer.GONE)
