"""uvicorn's HTTP protocol with one thing more: the application may cut a connection.

ASGI has no word for it, and closing politely keeps the socket and its buffer until a client that reads one
byte a second has read everything. Give this class to uvicorn: ``uvicorn.Config(http=AbortableProtocol)``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class AbortableProtocol(HttpToolsProtocol):
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"rllm.abort": self._abort}  # type: ignore[dict-item] # a callable

    def _abort(self) -> None:
        """With a reset: without it the kernel would go on offering what is in the socket's buffer."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as same:
                same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()
