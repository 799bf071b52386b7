"""JSON that costs more than it weighs, and texts that keep the tokenizer busy."""

from __future__ import annotations

import asyncio
import io
import statistics
import time
from collections.abc import Callable

import aiohttp

from tests.attack.arena import Arena
from tests.attack.case import Case, Outcome
from tests.attack.raw import connected
from tests.chaos.asking import ask, body
from tests.chaos.servers import ServerProcess

_JSON = {"content-type": "application/json"}
_LIMIT = 2 * 2**20
"""The largest body by default, and what attackers fill to the last byte."""


def _fill(head: str, item: str | Callable[[int], str], tail: str, size: int) -> bytes:
    """``head``, so many items with commas between them, ``tail``."""
    one = item if isinstance(item, str) else item(10**6)
    count = (size - len(head) - len(tail) - 1) // (len(one) + 1)
    items = [item] * count if isinstance(item, str) else list(map(item, range(count)))
    return (head + ",".join(items) + tail).encode()


def _bombs(size: int) -> dict[str, tuple[str, bytes]]:
    user = '{"messages":[{"role":"user","content":'
    return {
        "lists as prompts": ("/v1/completions", _fill('{"prompt":[', "[1]", "]}", size)),
        "empty lists": ("/v1/completions", _fill('{"prompt":[', "[]", "]}", size)),
        "token ids": ("/v1/completions", _fill('{"prompt":[', "1", "]}", size)),
        "biases": (
            "/v1/completions",
            _fill('{"prompt":"a","logit_bias":{', lambda i: f'"{i}":1', "}}", size),
        ),
        "stop strings": ("/v1/completions", _fill('{"prompt":"a","stop":[', '"a"', "]}", size)),
        "unknown fields": ("/v1/completions", _fill('{"prompt":"a",', lambda i: f'"k{i}":1', "}", size)),
        "messages": (
            "/v1/chat/completions",
            _fill('{"messages":[', '{"role":"user","content":"a"}', "]}", size),
        ),
        "parts": (
            "/v1/chat/completions",
            _fill(f"{user}[", '{"type":"text","text":""}', "]}]}", size),
        ),
        "words to detokenize": ("/detokenize", _fill('{"tokens":[', '"a"', "]}", size)),
        "brackets in a text": ("/v1/completions", b'{"prompt":"' + b"[{" * ((size - 20) // 2) + b'"}'),
        "quotes in a text": ("/v1/completions", b'{"prompt":"' + b'\\"[' * ((size - 20) // 3) + b"["),
    }


async def _post(arena: Arena, server: ServerProcess, path: str, data: bytes) -> int:
    timeout = aiohttp.ClientTimeout(60)
    try:
        async with arena.http.post(
            server.url + path, data=io.BytesIO(data), headers=_JSON, timeout=timeout
        ) as answer:
            await answer.read()
            return answer.status
    except (aiohttp.ClientError, TimeoutError):
        return 0


async def json_bombs(arena: Arena) -> Outcome:
    """Each shape four times at once, at the default limit of a body."""
    statuses: list[int] = []
    async with arena.server("--threads", 1, "--slots", 4) as server:
        bombs = _bombs(_LIMIT)
        async with arena.beside(server) as beside:
            for path, data in bombs.values():
                statuses += await asyncio.gather(*(_post(arena, server, path, data) for _ in range(4)))
    refused = sum(400 <= status < 500 for status in statuses)
    found = f"{refused} of {len(statuses)} refused with 4xx; {beside}"
    return Outcome(refused == len(statuses) and beside.kept, found, beside.figures)


async def eight_megabytes(arena: Arena) -> Outcome:
    """As they were sent then: beyond the limit of today, but the server must cope with them all the same."""
    statuses: list[int] = []
    async with arena.server("--threads", 1, "--slots", 4, "--max-body-bytes", 8 * 2**20) as server:
        bombs = _bombs(8 * 2**20)
        chosen = ("lists as prompts", "biases", "token ids")
        async with arena.beside(server) as beside:
            for name in chosen:
                statuses.append(await _post(arena, server, *bombs[name]))
    refused = sum(400 <= status < 500 for status in statuses)
    found = f"{refused} of {len(statuses)} refused with 4xx; {beside}"
    return Outcome(refused == len(statuses) and beside.kept, found, beside.figures)


async def long_texts(arena: Arena) -> Outcome:
    """Four texts of 1 MB, again and again, and an ordinary chat beside them."""
    text = ("The quick brown fox jumps over the lazy dog. " * 24_000)[: 2**20 - 100]
    data = b'{"content":"' + text.encode() + b'"}'
    waits: list[float] = []
    async with arena.server("--threads", 1, "--slots", 4) as server:
        alone_s = await _chat_s(arena, server)
        async with arena.beside(server) as beside:
            flood = [asyncio.create_task(_post(arena, server, "/tokenize", data)) for _ in range(4)]
            await asyncio.sleep(0.3)
            for _ in range(5):
                waits.append(await _chat_s(arena, server))
            await asyncio.gather(*flood)
    found = (
        f"a chat beside them took {statistics.median(waits):.2f} s at the median and {max(waits):.2f} s at most, "
        f"alone {alone_s:.2f} s; {beside}"
    )
    kept = max(waits) <= (alone_s + 1) * arena.slack and beside.kept
    return Outcome(kept, found, {"chat_s": max(waits), **beside.figures})


async def _chat_s(arena: Arena, server: ServerProcess) -> float:
    began = time.monotonic()
    answer = await ask(arena.http, server.url, body("What is the capital of France?", 2))
    return time.monotonic() - began if answer.is_whole else float("inf")


async def endless_body(arena: Arena) -> Outcome:
    """A body for a route that wants none: it goes on after the answer."""
    sent, most = 0, 200 * 2**20
    async with arena.server("--threads", 1, "--slots", 2) as server:
        async with arena.beside(server) as beside, connected(server.port) as (_, writer):
            before = server.footprint().rss_mib
            writer.write(
                b"GET /health/live HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            began = time.monotonic()
            try:
                while sent < most and time.monotonic() - began < 20:
                    writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                    sent += 65536
                    await asyncio.wait_for(writer.drain(), 5)
                    await asyncio.sleep(0.01)
            except (ConnectionError, TimeoutError):
                pass
            cut_s = time.monotonic() - began
            grown = server.footprint().rss_mib - before
    found = f"cut {cut_s:.1f} s after its answer, {sent / 2**20:.0f} MiB dropped, memory {grown:+.0f} MiB; {beside}"
    return Outcome(
        cut_s < 8 * arena.slack and sent < most and grown < 16 and beside.kept, found, beside.figures
    )


CASES = (
    Case(
        "json-bombs",
        4,
        "11 shapes of 2 MB of JSON (the largest body today), each four times at once",
        "refused with 4xx; no stream and no probe waits",
        "8 MB of `prompt: [[1],[1],…]` stopped the event loop for 3.9 s, 700,000 biases for 1.0 s, 4.2 million token ids for 0.65 s.",
        json_bombs,
        real=True,
    ),
    Case(
        "json-8mb",
        4,
        "the three shapes of 8 MB that stopped the loop then, on a server that allows 8 MB",
        "refused with 4xx; no stream and no probe waits",
        "As above.",
        eight_megabytes,
        real=True,
    ),
    Case(
        "long-texts",
        4,
        "4 times `/tokenize` of 1 MB at once",
        "an ordinary chat is answered within a second of its usual time",
        "An ordinary request was delayed by 11 s.",
        long_texts,
        real=True,
        quick=False,
    ),
    Case(
        "endless-body",
        4,
        "a body without end for a route that has answered already",
        "cut some seconds after the answer; memory stays",
        "Read and dropped for as long as it came.",
        endless_body,
        real=True,
        quick=False,
    ),
)
