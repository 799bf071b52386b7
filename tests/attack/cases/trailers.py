"""What comes after the last chunk of a body: trailers without end."""

from __future__ import annotations

import asyncio

from tests.attack.arena import Arena
from tests.attack.case import Case, Outcome
from tests.attack.raw import connected
from tests.chaos.servers import ServerProcess

_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
)


async def _flood(server: ServerProcess, line: bytes, most: int) -> int:
    """Trailers until the server has enough; the bytes it took."""
    sent = 0
    async with connected(server.port) as (reader, writer):
        writer.write(_HEAD)
        try:
            while sent < most and not reader.at_eof():
                writer.write(line)
                sent += len(line)
                await asyncio.wait_for(writer.drain(), 5)
        except (ConnectionError, TimeoutError):
            pass
    return sent


async def _trailers(arena: Arena, line: bytes, connections: int, most: int) -> Outcome:
    async with arena.server("--threads", 1, "--slots", 2) as server:
        async with arena.beside(server) as beside:
            before = server.footprint().rss_mib
            sent = await asyncio.gather(*(_flood(server, line, most) for _ in range(connections)))
            grown = server.footprint().rss_mib - before
    taken = f"{max(sent) / 2**20:.1f} MiB"
    cut = (
        f"took all of {taken}"
        if max(sent) >= most
        else f"cut after {taken}, most of it in the kernel's buffers"
    )
    found = f"{cut}, memory {grown:+.0f} MiB; {beside}"
    return Outcome(
        max(sent) < most / 2 and grown < 16 and beside.kept, found, {"grown_mib": grown, **beside.figures}
    )


async def large(arena: Arena) -> Outcome:
    return await _trailers(arena, b"x-trailer: " + b"y" * 60_000 + b"\r\n", connections=5, most=60 * 2**20)


async def small(arena: Arena) -> Outcome:
    return await _trailers(arena, b"a:b\r\n" * 10_000, connections=1, most=20 * 2**20)


CASES = (
    Case(
        "trailers",
        1,
        "5 connections send 60 MB of trailers after a body of `{}`, without a key",
        "cut at the limit of a head; memory stays",
        "The API process grew from 103 to 404 MiB and gave nothing back.",
        large,
        real=True,
    ),
    Case(
        "small-trailers",
        1,
        "20 MB of trailers `a:b`",
        "cut at the limit of a head; memory stays",
        "The API process grew to 779 MiB.",
        small,
        real=True,
    ),
)
