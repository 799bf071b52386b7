"""An ordinary user while others attack: ``python -m tests.attack.bystander URL``.

Streams one answer after the other and asks for /health/live all the time, each time on a new connection. In
a process of its own, so that the attackers' work is not taken for the server's. Prints "streaming" when the
first tokens have come, and what it saw as JSON when its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field

import aiohttp
import orjson

_PERIOD_S = 0.05
_PATIENCE_S = 30.0
_REQUEST = {"prompt": "Once upon a time", "max_tokens": 1500, "ignore_eos": True, "stream": True}


@dataclass
class _Seen:
    worst_gap_s: float = 0.0
    worst_health_s: float = 0.0
    num_tokens: int = 0
    num_probes: int = 0
    last_token: float | None = field(default=None)

    def token(self) -> None:
        now = time.monotonic()
        if self.last_token is not None:
            self.worst_gap_s = max(self.worst_gap_s, now - self.last_token)
        self.last_token = now
        self.num_tokens += 1


async def _stream(http: aiohttp.ClientSession, url: str, seen: _Seen, streaming: asyncio.Event) -> None:
    """Gaps count within one answer: between two lies a queue that is not the question here."""
    while True:
        async with http.post(url + "/v1/completions", json=_REQUEST) as response:
            if response.status != 200:
                raise RuntimeError(f"the stream was answered {response.status}: {await response.text()}")
            async for line in response.content:
                if line.startswith(b"data: {"):
                    seen.token()
                    if seen.num_tokens > 5:
                        streaming.set()
        seen.last_token = None


async def _probe(http: aiohttp.ClientSession, url: str, seen: _Seen) -> None:
    while True:
        began = time.monotonic()
        try:
            async with http.get(url + "/health/live") as response:
                await response.read()
        finally:  # one that is cut short at the end was waited for so long at least
            seen.worst_health_s = max(seen.worst_health_s, time.monotonic() - began)
        seen.num_probes += 1
        await asyncio.sleep(_PERIOD_S)


async def _watch(url: str) -> _Seen:
    seen, streaming = _Seen(), asyncio.Event()
    told = asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    timeout = aiohttp.ClientTimeout(total=None, sock_read=_PATIENCE_S)
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        stream = asyncio.create_task(_stream(http, url, seen, streaming))
        await asyncio.wait({asyncio.create_task(streaming.wait()), stream}, return_when="FIRST_COMPLETED")
        seen.worst_gap_s = 0.0
        probe = asyncio.create_task(_probe(http, url, seen))
        print("streaming", flush=True)
        await asyncio.wait({asyncio.ensure_future(told), stream, probe}, return_when="FIRST_COMPLETED")
        if seen.last_token is not None:
            seen.worst_gap_s = max(seen.worst_gap_s, time.monotonic() - seen.last_token)
        for task in (stream, probe):
            task.cancel()
        # A server that does not answer is what this looks for: the times say it.
        await asyncio.gather(stream, probe, return_exceptions=True)
    return seen


if __name__ == "__main__":
    print(orjson.dumps(asyncio.run(_watch(sys.argv[1]))).decode())
