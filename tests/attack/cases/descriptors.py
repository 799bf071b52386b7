"""A server that has run out of descriptors, and what needs one then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from tests.attack.arena import Arena
from tests.attack.case import Case, Outcome
from tests.attack.raw import post
from tests.chaos.asking import ask, body
from tests.chaos.servers import ServerProcess

_LIMIT = ("prlimit", "--nofile=256:256")


@asynccontextmanager
async def _crowd(server: ServerProcess, count: int, sent: bytes) -> AsyncIterator[None]:
    """So many connections that say no more than ``sent``."""
    loop, sockets = asyncio.get_running_loop(), []
    try:
        for _ in range(count):
            sockets.append(sock := socket.socket())
            sock.setblocking(False)
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(2):
                    await loop.sock_connect(sock, ("127.0.0.1", server.port))
                    await loop.sock_sendall(sock, sent)
        yield
    finally:
        for sock in sockets:
            sock.close()


async def _health_s(arena: Arena, server: ServerProcess) -> float:
    began = time.monotonic()
    with contextlib.suppress(aiohttp.ClientError):
        async with arena.http.get(server.url + "/health/live", timeout=aiohttp.ClientTimeout(5)) as response:
            if response.status == 200:
                return time.monotonic() - began
    return float("inf")


async def _killed_in_a_crowd(arena: Arena, count: int, sent: bytes) -> Outcome:
    """The worker dies while the crowd is there; the crowd goes; then an ordinary request."""
    async with arena.server("--threads", 1, "--slots", 2, wrap=_LIMIT) as server:
        async with _crowd(server, count, sent):
            health_s = await _health_s(arena, server)
            began = time.monotonic()
            os.kill(server.worker_pids[0], signal.SIGKILL)
            async with asyncio.timeout(5):
                while b'"restarting"' not in server.log.read_bytes():
                    await asyncio.sleep(0.02)
            await asyncio.sleep(1)
        back_s = -1.0
        while back_s < 0 and time.monotonic() - began < 30:
            answer = await ask(arena.http, server.url, body("Are you back?", 4), timeout_s=5)
            back_s = time.monotonic() - began if answer.is_whole else -1.0
            await asyncio.sleep(0.1)
        footprint = server.footprint()
    found = (
        f"/health/live in {health_s:.3f} s in the crowd, "
        + (f"an answer {back_s:.1f} s after the kill" if back_s >= 0 else "no answer for 30 s after the kill")
        + f", {footprint.num_fds} descriptors in use at the end"
    )
    return Outcome(
        health_s < 1 and 0 <= back_s < 15 * arena.slack, found, {"health_s": health_s, "back_s": back_s}
    )


async def idle(arena: Arena) -> Outcome:
    return await _killed_in_a_crowd(arena, 235, b"")


async def halfway(arena: Arena) -> Outcome:
    return await _killed_in_a_crowd(arena, 400, b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n")


async def busy(arena: Arena) -> Outcome:
    """Nobody can make room: every connection has a request that waits for its body."""
    begun = post("/v1/completions", b"{" + b" " * 100)[:-50]
    return await _killed_in_a_crowd(arena, 400, begun)


async def signals(arena: Arena) -> Outcome:
    """What an operator sends to the server's whole group, or by mistake to a worker."""
    async with arena.server("--threads", 1, "--slots", 2) as server:
        async with arena.beside(server) as beside:
            workers = server.worker_pids
            for pid in workers:
                for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGINT, signal.SIGTERM):
                    os.kill(pid, number)
            await asyncio.sleep(1)
        lost = await server.metric(arena.http, "rllm_worker_restarts_total")
        alive = server.worker_pids == workers
    found = f"{'the same workers' if alive else 'other workers'} afterwards, {lost:.0f} restarts; {beside}"
    return Outcome(alive and lost == 0 and beside.kept, found)


CASES = (
    Case(
        "idle-crowd",
        2,
        "`ulimit -n 256`, 235 idle connections, kill -9 of the worker, then the connections close",
        "health answers in the crowd, the worker is replaced, failures to start it are logged",
        '"restarting" and 503 for as long as anybody looked (278 s), without a log line.',
        idle,
    ),
    Case(
        "halfway-crowd",
        2,
        "the same with 400 connections that send half a head each",
        "health answers in the crowd, the worker is replaced",
        "As above.",
        halfway,
    ),
    Case(
        "busy-crowd",
        2,
        "the same with 400 requests whose body does not come: no connection is idle",
        "health answers in the crowd, the worker is replaced",
        "As above.",
        busy,
    ),
    Case(
        "stray-signals",
        7,
        "SIGHUP, SIGUSR2, SIGINT and SIGTERM to every worker",
        "the same workers go on, no stream notices",
        "SIGHUP ended the worker.",
        signals,
        real=True,
    ),
)
