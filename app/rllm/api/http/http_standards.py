"""What clients may do by the standards of HTTP and uvicorn's protocol over httptools does not serve.

An offer to upgrade that is ignored costs no body (RFC 9110, 7.8: Java's HttpClient and ``curl --http2`` make
one with every first request; uvicorn loses the body, Kludex/uvicorn#2722). A client of HTTP/1.0 gets no
chunks (RFC 9112, 7.1). A client that closes its side after the request gets its answer (RFC 9112, 9.6).
"""

from __future__ import annotations

import asyncio
import select
from enum import Enum
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

if TYPE_CHECKING:
    from starlette.types import Message

_FRAMING = (b"content-length", b"transfer-encoding")
_PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"


class StandardHttp(HttpToolsProtocol):
    """No upgrade is accepted, websockets included."""

    probe_period_s = 0.4
    """How often it is tried whether a client that closed its side has gone altogether."""
    probe_answer_s = 0.05
    """Until its system has said so, if it has."""

    _half_closed: asyncio.TimerHandle | None = None
    _running: RequestResponseCycle | None = None
    """The one that is worked on. With pipelining uvicorn's own `cycle` is the one that came last."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = _Parser(self)  # type: ignore[assignment] # has what is used of it

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0":
            self.cycle.send = _UntilClosed(self.cycle)  # type: ignore[method-assign, assignment]

    def eof_received(self) -> bool:  # type: ignore[override]
        """Whether the connection stays open for what is still to be said.

        A client that has gone looks the same until something is sent to it. HTTP/1.1 has something to send
        before the answer begins, and as often as we like. HTTP/1.0 has not, nor has an answer under way:
        there an end means gone.
        """
        if not self.may_probe or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        self.probe()
        return True

    @property
    def may_probe(self) -> bool:
        """Whether a client that closed its side can be asked if it is still there."""
        running = self._running
        return running is not None and not running.response_started and running.scope["http_version"] != "1.0"

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_probe()
        super().connection_lost(exc)

    def probe(self) -> None:
        """Find out whether the client has gone altogether, from now on every ``probe_period_s``."""
        self._forget_probe()
        if self.transport.is_closing():
            return
        if self.may_probe:
            self.transport.write(_PROBE)
        self._half_closed = self.loop.call_later(self.probe_answer_s, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        if peer(self.transport) is Peer.GONE:
            self.transport.abort()
        else:
            self._half_closed = self.loop.call_later(self.probe_period_s - self.probe_answer_s, self.probe)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _forget_probe(self) -> None:
        if self._half_closed is not None:
            self._half_closed.cancel()
            self._half_closed = None


class Peer(Enum):
    OPEN = "open"
    CLOSED_ITS_SIDE = "closed its side"
    GONE = "gone"
    """It has answered something with "there is no such connection"."""


def peer(transport: asyncio.Transport) -> Peer:
    """What the other side has done so far, whatever still waits to be read."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return Peer.OPEN
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)  # POLLERR and POLLHUP are always reported
    events = sum(event for _, event in poll.poll(0))
    if events & (select.POLLERR | select.POLLHUP):
        return Peer.GONE
    return Peer.CLOSED_ITS_SIDE if events else Peer.OPEN


class _UntilClosed:
    """The `send` of an answer whose end is the end of the connection, where its length is not known."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._send = cycle.send
        self._is_open = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_open = not any(
                name.lower() == b"content-length" for name, _ in message.get("headers", ())
            )
            if self._is_open:
                self._cycle.chunked_encoding = False
        elif self._is_open:
            self._cycle.expected_content_length = len(message.get("body", b""))
        await self._send(message)  # type: ignore[arg-type]


class _Parser:
    """httptools' parser, which stops at an offer to upgrade as if it had been accepted, made to go on."""

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self._listener = _Listener(protocol)
        self._start(self._listener)

    def _start(self, listener: _Listener) -> None:
        self._parser = listener.parser = httptools.HttpRequestParser(listener)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.get_method = self._parser.get_method
        self.get_http_version = self._parser.get_http_version
        self.should_keep_alive = self._parser.should_keep_alive

    def should_upgrade(self) -> bool:
        return False

    def feed_data(self, data: bytes) -> None:
        """
        Raises:
            httptools.HttpParserError: this is no HTTP.
        """
        rest = memoryview(data)
        while True:
            try:
                self._parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as offer:
                self._start_at_body()
                rest = rest[offer.args[0] :]

    def _start_at_body(self) -> None:
        """A new parser that has read a head like the one before, but for the offer."""
        listener = _AfterHead(self._protocol)
        self._start(listener)
        framing = [name + b": " + value for name, value in self._protocol.headers if name in _FRAMING]
        self._parser.feed_data(b"\r\n".join([b"POST / HTTP/1.1", *framing, b"", b""]))
        listener.is_told = True


class _Listener:
    """Hears the parser for the protocol. httptools asks for the methods once, so most calls are direct."""

    parser: httptools.HttpRequestParser

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():  # else the body is still to come
            self._protocol.on_message_complete()


class _AfterHead(_Listener):
    """Keeps the head to itself that the protocol knows already."""

    is_told = False

    def on_message_begin(self) -> None:
        if self.is_told:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self.is_told:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.is_told:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.is_told:
            self._protocol.on_headers_complete()
