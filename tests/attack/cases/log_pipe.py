"""A log whose reader stands still, or goes."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from tests.attack.arena import Arena
from tests.attack.case import Case, Outcome
from tests.chaos.asking import ask, body
from tests.chaos.servers import ServerProcess

_REQUESTS = 600


async def _with_log(arena: Arena, *, closed: bool) -> Outcome:
    read_end, write_end = os.pipe()
    try:
        async with arena.server("--threads", 1, "--slots", 4, stderr=write_end) as server:
            os.close(write_end)
            write_end = -1
            if closed:
                os.close(read_end)
                read_end = -1
            async with arena.beside(server) as beside:
                whole = await _answered(arena, server)
            dropped = 0.0
            if whole == _REQUESTS:
                dropped = await server.metric(arena.http, "rllm_log_lines_dropped_total")
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(20):
                    status: int | None = await server.process.wait()
            except TimeoutError:
                status = None
            end_s = time.monotonic() - began
    finally:
        for end in (read_end, write_end):
            if end >= 0:
                os.close(end)
    ended = f"exit {status} {end_s:.1f} s after SIGTERM" if status is not None else "SIGTERM ignored"
    found = f"{whole} of {_REQUESTS} requests answered, {dropped:.0f} lines dropped and counted, {ended}; {beside}"
    kept = whole == _REQUESTS and status == 0 and beside.kept and (dropped > 0 or not closed)
    return Outcome(kept, found, {"answered": whole, **beside.figures})


async def _answered(arena: Arena, server: ServerProcess) -> int:
    """How many requests, one after the other, until one is not."""
    for number in range(_REQUESTS):
        if not (await ask(arena.http, server.url, body("hi", 1), timeout_s=10)).is_whole:
            return number
    return _REQUESTS


async def unread(arena: Arena) -> Outcome:
    return await _with_log(arena, closed=False)


async def closed(arena: Arena) -> Outcome:
    return await _with_log(arena, closed=True)


CASES = (
    Case(
        "unread-log",
        8,
        f"the log goes to a pipe that nobody reads; {_REQUESTS} requests, then SIGTERM",
        "every request is answered, SIGTERM ends it with 0",
        "Everything froze at request 316; SIGTERM was ignored.",
        unread,
        real=True,
    ),
    Case(
        "closed-log",
        8,
        f"the reader of the log goes away; {_REQUESTS} requests, then SIGTERM",
        "every request is answered, what is lost is counted, SIGTERM ends it with 0",
        "The server ended with exit 1.",
        closed,
        real=True,
    ),
)
