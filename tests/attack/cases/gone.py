"""Clients that go while something of theirs is still on the way."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import orjson

from tests.attack.arena import Arena
from tests.attack.case import Case, Outcome
from tests.attack.raw import connected, post_json, reset
from tests.chaos.servers import ServerProcess

_LONG = {"prompt": "Once upon a time", "max_tokens": 3000, "ignore_eos": True}
_GET = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n"
_REST = {
    "nothing": b"",
    "the first bytes of another": b"POST /v1/com",
    "another whole one": _GET,
    "ten others": _GET * 10,
    "another with its body": post_json("/v1/completions", {**_LONG, "stream": True}),
    "a head and half a body": b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99\r\n\r\n{",
    "200 kB of others": _GET * 4000,
}
"""What a connection may hold behind the request that is worked on."""


@dataclass(frozen=True)
class _Left:
    what: str
    seconds: float
    """Until nothing was in flight; -1: longer than anybody waited."""


async def _until_running(arena: Arena, server: ServerProcess, least: int) -> None:
    async with asyncio.timeout(30):
        while await server.metric(arena.http, "rllm_sequences_in_flight") < least:
            await asyncio.sleep(0.02)


async def _until_gone(arena: Arena, server: ServerProcess, least: int) -> float:
    began = time.monotonic()
    while time.monotonic() - began < 20:
        if await server.metric(arena.http, "rllm_sequences_in_flight") <= least:
            return time.monotonic() - began
        await asyncio.sleep(0.02)
    return -1.0


async def _leave(
    arena: Arena, server: ServerProcess, stream: bool, rest: bytes, how: str, others: int
) -> float:
    async with connected(server.port) as (_, writer):
        writer.write(post_json("/v1/completions", {**_LONG, "stream": stream}) + rest)
        await writer.drain()
        await _until_running(arena, server, others + 1)
        await asyncio.sleep(0.1)
        if how == "reset":
            reset(writer)
        else:
            writer.close()
        return await _until_gone(arena, server, others)


async def every_state(arena: Arena) -> Outcome:
    """In each state of the connection, with a plain stream beside it."""
    async with arena.server("--threads", 1, "--slots", 4) as server:
        async with arena.beside(server) as beside:
            left = [
                _Left(f"{what}, {form}, {how}", await _leave(arena, server, form == "streamed", rest, how, 1))
                for what, rest in _REST.items()
                for form in ("streamed", "whole")
                for how in ("reset", "closed")
            ]
        num_500 = await server.metric(arena.http, "rllm_requests_total", status="500")
        logged = server.log.read_bytes()
    worst = max(left, key=lambda each: each.seconds if each.seconds >= 0 else float("inf"))
    late = [each.what for each in left if not 0 <= each.seconds <= 0.5 * arena.slack]
    kept = not late and num_500 == 0 and b"internal error" not in logged and beside.kept
    found = (
        f"the last was noticed after {worst.seconds:.2f} s ({worst.what})"
        + (f", late: {'; '.join(late)}" if late else "")
        + f", {num_500:.0f} answers 500; {beside}"
    )
    return Outcome(kept, found, {"noticed_s": worst.seconds, **beside.figures})


async def storm(arena: Arena) -> Outcome:
    """Many at once, pipelined and reset at random moments."""

    async def one(number: int) -> None:
        async with connected(server.port) as (_, writer):
            writer.write(post_json("/v1/completions", {**_LONG, "stream": number % 2 == 0}))
            writer.write(list(_REST.values())[number % len(_REST)])
            await asyncio.sleep((number * 7 % 40) / 100)
            reset(writer)

    async with arena.server("--threads", 1, "--slots", 4) as server:
        async with arena.beside(server) as beside:
            for _ in range(4):
                await asyncio.gather(*(one(number) for number in range(60)))
            gone_s = await _until_gone(arena, server, 1)
        num_500 = await server.metric(arena.http, "rllm_requests_total", status="500")
        events = [orjson.loads(line) for line in server.log.read_bytes().splitlines() if line[:1] == b"{"]
        faults = sum(
            event["event"] in ("internal error", "Exception in ASGI application\n") for event in events
        )
    found = f"nothing in flight {gone_s:.2f} s after the last, {num_500:.0f} answers 500, {faults} faults in the log; {beside}"
    kept = 0 <= gone_s <= 0.5 * arena.slack and not num_500 and not faults and beside.kept
    return Outcome(kept, found, {"noticed_s": gone_s, **beside.figures})


CASES = (
    Case(
        "gone",
        6,
        "a client goes, by RST or FIN, while a request is worked on and more bytes of its connection wait",
        "noticed within 0.5 s in every state, never a 500",
        "The generation ran to its end (12 s).",
        every_state,
        real=True,
    ),
    Case(
        "gone-storm",
        6,
        "240 clients go by RST at random moments, most with pipelined bytes behind their request",
        "nothing in flight 0.5 s after the last, never a 500",
        "30 requests stayed in flight for 40 s, 244 were answered 500.",
        storm,
        real=True,
    ),
)
