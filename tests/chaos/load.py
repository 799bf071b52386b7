"""Open and closed loops of requests. Arrivals are decided before the run, so a slow server cannot slow them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import aiohttp

from tests.chaos.asking import Answer, ask

MakeBody = Callable[[int], dict[str, Any]]


def poisson(rate: float, duration_s: float, seed: int) -> list[float]:
    """Arrival times."""
    rng = random.Random(seed)
    times, now = [], rng.expovariate(rate)
    while now < duration_s:
        times.append(now)
        now += rng.expovariate(rate)
    return times


async def open_loop(
    http: aiohttp.ClientSession,
    url: str,
    arrivals: list[float],
    make_body: MakeBody,
    *,
    headers: dict[str, str] | None = None,
    patience_s: float = 60,
    first: int = 0,
) -> list[Answer]:
    """Send at the given times whatever happens. Who has no whole answer ``patience_s`` after his own start is cut."""
    began = time.monotonic()
    tasks = []
    for number, at in enumerate(arrivals):
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        answer = Answer(began + at)
        job = ask(http, url, make_body(first + number), headers=headers, timeout_s=patience_s, answer=answer)
        tasks.append(asyncio.create_task(job))
    return list(await asyncio.gather(*tasks))


async def closed_loop(
    http: aiohttp.ClientSession,
    url: str,
    clients: int,
    duration_s: float,
    make_body: MakeBody,
    *,
    headers: dict[str, str] | None = None,
) -> list[Answer]:
    """``clients`` that ask again as soon as they are answered."""
    until = time.monotonic() + duration_s
    answers: list[Answer] = []

    async def client(number: int) -> None:
        count = 0
        while time.monotonic() < until:
            answers.append(await ask(http, url, make_body(number * 100_000 + count), headers=headers))
            count += 1

    await asyncio.gather(*(client(number) for number in range(clients)))
    return answers
