"""From listening to the last byte: the HTTP server beside a pool that loads, serves and drains.

The port answers while the models load (/health says so), and goes on answering while requests are drained:
new ones are refused by the pool, so that a load balancer sees "not ready" instead of a closed port.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import psutil
import uvicorn
from fastapi import FastAPI

from rllm.api.http.connections import Connections, Room
from rllm.api.http.transport import HttpProtocol
from rllm.errors import StartError

_KEEP_ALIVE_S = 75
"""Longer than clients and proxies keep an idle connection: the server must not be who closes first, or it
closes under a request that is on its way."""
_HANDSHAKE_S = 10.0
"""Until a TLS connection must be one. Before, it is no connection of ours that could make room for others."""
_CTRL_C_DRAIN_S = 1.0
"""Somebody waits at the keyboard; a worker that must be killed needs up to 3 s more."""


class Startable(Protocol):
    """The part of the pool that this module needs."""

    async def start(self) -> None: ...

    def begin_drain(self, *, refuse: bool) -> None: ...

    async def stop(self, drain_s: float) -> None: ...


class _HttpServer(uvicorn.Server):
    """uvicorn without its own handling of signals (a drain comes first), on sockets of both kinds."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        loop, config = asyncio.get_running_loop(), self.config
        tls_s = None if config.ssl is None else _HANDSHAKE_S
        for sock in sockets or ():
            start = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
            server = await start(
                self._protocol,
                sock=sock,
                ssl=config.ssl,
                ssl_handshake_timeout=tls_s,
                backlog=config.backlog,
            )
            self.servers.append(server)

    def _protocol(self) -> asyncio.Protocol:
        """As `uvicorn.Server.startup` makes it."""
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


async def serve(
    app: FastAPI,
    pool: Startable,
    listeners: Sequence[socket.socket],
    *,
    drain_s: float,
    delay_s: float = 0.0,
    room: Room,
    on_ready: Callable[[], Awaitable[None]],
    on_stopping: Callable[[str, float], None],
    on_reload: Callable[[], None] = lambda: None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Run until a signal comes, then drain. ``on_ready`` is called once when every model is loaded.

    After SIGTERM requests are accepted for ``delay_s`` more while the server says that it is not ready, so
    that whoever routes to it can learn that before anybody is refused. SIGHUP calls ``on_reload``. ``room``:
    how many connections there may be.

    Raises:
        StartError: a model cannot be served.
    """
    loop = asyncio.get_running_loop()
    stopped = _catch_signals(loop)
    loop.add_signal_handler(signal.SIGHUP, on_reload)
    config = uvicorn.Config(
        app,
        http=partial(HttpProtocol, connections=Connections(room)),  # type: ignore[arg-type] # called like a class
        backlog=room.burst,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=_KEEP_ALIVE_S,
        ssl_context_factory=None if tls is None else lambda _config, _default: tls,
    )
    http = _HttpServer(config)
    serving = asyncio.create_task(http.serve(sockets=list(listeners)), name="http")
    starting = asyncio.create_task(pool.start(), name="start")
    try:
        await _first(starting, serving, stopped)
        if starting.done():
            starting.result()
            await on_ready()
            await _first(serving, stopped)
    finally:
        await _stop_start(starting)
        patience = _drain_s(stopped, drain_s)
        if stopped.done():
            on_stopping(stopped.result().name, patience)
            if starting.done() and stopped.result() is signal.SIGTERM and delay_s > 0:
                pool.begin_drain(refuse=False)
                await asyncio.sleep(delay_s)
        await pool.stop(patience)
        http.should_exit = True
        await serving
    if not stopped.done():
        raise StartError("the HTTP server ended by itself")


def survive_signals() -> None:
    """SIGUSR1 prints where every thread stands, as a worker's watchdog uses it; SIGUSR2 is nothing.

    The default of both is to end the process, which whoever sends them to a process group does not mean.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if sys.__stderr__ is None:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    else:
        faulthandler.register(signal.SIGUSR1, file=sys.__stderr__)


def _catch_signals(loop: asyncio.AbstractEventLoop) -> asyncio.Future[signal.Signals]:
    """The first signal is the result; the second one ends the process at once."""
    stopped: asyncio.Future[signal.Signals] = loop.create_future()

    def caught(number: signal.Signals) -> None:
        if stopped.done():
            abandon(128 + number)
        stopped.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, caught, number)
    return stopped


def _drain_s(stopped: asyncio.Future[signal.Signals], drain_s: float) -> float:
    if not stopped.done():
        return 0.0
    return min(drain_s, _CTRL_C_DRAIN_S) if stopped.result() is signal.SIGINT else drain_s


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


async def _stop_start(starting: asyncio.Task[None]) -> None:
    if starting.done():
        return
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError, StartError):
        await starting


def abandon(status: int) -> None:
    """End this process and its workers without another word."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(status)
