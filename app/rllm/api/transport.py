"""uvicorn's HTTP protocol with one thing more: the application may cut a connection.

ASGI has no word for it, and closing politely keeps the socket and its buffer until a client that reads one
byte a second has read everything. Give this class to uvicorn: ``uvicorn.Config(http=AbortableProtocol)``.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class AbortableProtocol(HttpToolsProtocol):
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"rllm.abort": self.transport.abort}  # type: ignore[dict-item] # a callable
