"""uvicorn's HTTP protocol with the bounds it does not have: ``uvicorn.Config(http=HttpProtocol)``.

A request's head must arrive in time and may not grow without end. And the application may cut a
connection: ASGI has no word for it, and closing politely keeps the socket and its buffer until a client
that reads one byte a second has read everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct

from rllm.api.http_standards import StandardHttp

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class HttpProtocol(StandardHttp):
    """Bodies are bounded in `rllm.api.middleware`, idle connections by uvicorn's own keep-alive timeout."""

    head_timeout_s = 30.0
    """From the connection, or the first byte of a further request, to the end of its headers."""
    max_head_bytes = 64 * 1024

    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn does
        super().connection_made(transport)
        self._expect_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()
        self.scope["extensions"] = {"rllm.abort": self._abort}  # type: ignore[dict-item] # a callable

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._deadline is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self.max_head_bytes:
                self._forget_deadline()
                self.send_400_response(f"The request's headers have more than {self.max_head_bytes} bytes.")

    def on_headers_complete(self) -> None:
        self._forget_deadline()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_deadline()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._forget_deadline()
        self._head_bytes = 0
        self._deadline = self.loop.call_later(self.head_timeout_s, self.transport.abort)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _abort(self) -> None:
        """With a reset: without it the kernel would go on offering what is in the socket's buffer."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()
