"""Two callers at once: one within its limits, one far beyond the requests per minute of its key."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.chaos.asking import Answer
from tests.chaos.load import open_loop, poisson
from tests.chaos.result import Result, percentile

FREE, LIMITED = "chaos-free", "chaos-limited"
PER_MINUTE = 30
"""Requests of the limited key."""


@dataclass
class Callers:
    seconds: float
    free: list[Answer]
    limited: list[Answer]


def write_keys(path: Path) -> Path:
    def table(secret: str, more: str) -> str:
        digest = hashlib.sha256(secret.encode()).hexdigest()
        return f'[[keys]]\nname = "{secret}"\nsha256 = "{digest}"\n{more}\n'

    path.write_text(table(FREE, "") + table(LIMITED, f"requests_per_min = {PER_MINUTE}"))
    return path


def authorization(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def both(
    http: aiohttp.ClientSession,
    url: str,
    make_body: Callable[[int], dict[str, Any]],
    *,
    free_rate: float,
    seconds: float,
    limited_rate: float = 6.0,
) -> Callers:
    async def load(secret: str, rate: float, first: int) -> list[Answer]:
        arrivals = poisson(rate, seconds, seed=first)
        return await open_loop(
            http, url, arrivals, make_body, headers=authorization(secret), first=first * 10_000_000
        )

    free, limited = await asyncio.gather(load(FREE, free_rate, 7), load(LIMITED, limited_rate, 8))
    return Callers(seconds, free, limited)


def judge(result: Result, callers: Callers) -> None:
    refused = [answer for answer in callers.limited if answer.status == 429]
    others = [answer for answer in callers.limited if not answer.is_whole and answer not in refused]
    named = [answer for answer in refused if answer.code == "rate_limit_exceeded" and answer.retry_after]
    result.check(
        f"a key beyond its {PER_MINUTE} requests a minute gets 429 with Retry-After, and nothing else",
        bool(refused) and len(named) == len(refused) and not others,
        f"{len(refused)} of {len(callers.limited)} refused, {len(named)} of them so; {len(others)} other",
    )
    times = [answer.ended_at - answer.sent_at for answer in refused]
    result.check(
        "and hears it in less than 50 ms p99",
        percentile(times, 99) < 0.05,
        f"p99 {percentile(times, 99) * 1000:.1f} ms",
    )
    bad = [answer for answer in callers.free if not answer.is_whole]
    result.check(
        "another key beside it is served",
        bool(callers.free) and not bad,
        f"{len(bad)} of {len(callers.free)} were not",
    )
    result.raw["callers"] = {
        "free": [answer.row() for answer in callers.free],
        "limited": [answer.row() for answer in callers.limited],
    }
