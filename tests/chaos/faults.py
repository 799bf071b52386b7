"""Three faults of a server that goes on answering, made from outside: by its clients, and by signals to a worker.

Nothing in the server knows of them. Each runs until it is cancelled and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from tests.chaos.servers import ServerProcess


@dataclass(frozen=True)
class Sizes:
    """What suits a server of two workers, each with 8 slots and a unified cache of 2048 cells."""

    ordinary: tuple[int, int] = (60, 32)
    """Tokens of prompt and output of the traffic that is always there."""
    long_prompt: tuple[int, int] = (800, 2)
    flooders: int = 4
    long_answer: tuple[int, int] = (30, 700)
    hogs: int = 14
    """Of them, half a cache each is more than there is."""
    stopped_share: float = 0.85
    period_s: float = 0.5
    """Far below the watchdog's patience."""


@dataclass(frozen=True)
class Scene:
    http: aiohttp.ClientSession
    server: ServerProcess
    rng: random.Random
    sizes: Sizes = Sizes()

    async def ask(self, tokens: tuple[int, int]) -> None:
        """One completion of so many prompt and output tokens, shared with nobody; how it ends does not matter."""
        num_prompt, max_tokens = tokens
        prompt = [self.rng.randrange(20, 200) for _ in range(num_prompt)]
        data = {"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True, "temperature": 0.7}
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self.http.post(self.server.url + "/v1/completions", json=data) as response:
                await response.read()

    async def crowd(self, count: int, tokens: tuple[int, int]) -> None:
        """``count`` clients that ask again as soon as they are answered, for ever."""

        async def client() -> None:
            while True:
                await self.ask(tokens)
                await asyncio.sleep(0.05)

        await asyncio.gather(*(client() for _ in range(count)))


Fault = Callable[[Scene, int], Awaitable[None]]
"""With the pid of a worker, which all but one ignore."""


async def slow_prefill(scene: Scene, _pid: int) -> None:
    """Clients whose prompts are long and whose answers are two tokens."""
    await scene.crowd(scene.sizes.flooders, scene.sizes.long_prompt)


async def kv_full(scene: Scene, _pid: int) -> None:
    """Clients whose answers are so long that all of them together have no room in the cache."""
    await scene.crowd(scene.sizes.hogs, scene.sizes.long_answer)


async def slow_worker(scene: Scene, pid: int) -> None:
    """A worker that is stopped most of the time, as on a core that others have taken."""
    stopped_s = scene.sizes.period_s * scene.sizes.stopped_share
    try:
        while True:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(stopped_s)
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(scene.sizes.period_s - stopped_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


FAULTS: dict[str, Fault] = {"slow prefill": slow_prefill, "KV full": kv_full, "slow worker": slow_worker}


@asynccontextmanager
async def running(work: Awaitable[None]) -> AsyncIterator[None]:
    """``work`` beside the block, and over with it."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def ordinary_traffic(scene: Scene, requests_per_s: float) -> None:
    """Poisson arrivals, for ever."""
    async with asyncio.TaskGroup() as group:
        while True:
            await asyncio.sleep(scene.rng.expovariate(requests_per_s))
            group.create_task(scene.ask(scene.sizes.ordinary))
