"""Half an hour at 70 % load: what grows?"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.chaos.asking import Answer, body, prompt
from tests.chaos.load import closed_loop, open_loop, poisson
from tests.chaos.result import Result, Series, percentile, slope
from tests.chaos.servers import Footprint, rllm


@dataclass(frozen=True)
class SoakPlan:
    model: Path
    duration_s: float = 1800.0
    load: float = 0.7
    sample_s: float = 5.0
    threads: int = 0
    """0: as many as the server chooses."""
    slots: int = 8
    ctx: int = 512
    max_tokens: int = 32
    most_mib_per_hour: float = 16.0

    def body(self, number: int) -> dict[str, Any]:
        return body(prompt(number), self.max_tokens, stream=number % 2 == 0)


async def run(plan: SoakPlan) -> Result:
    result = Result(
        "soak",
        f"{plan.duration_s / 60:g} minutes at {100 * plan.load:.0f} % load",
        f"rllm-serve --gguf {plan.model.name} --slots {plan.slots}; Poisson arrivals, {plan.max_tokens} tokens, half "
        "of them streaming, every prompt different. Memory is private (USS) of server and worker together.",
    )
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        options = (
            "--gguf",
            plan.model,
            "--threads",
            plan.threads,
            "--slots",
            plan.slots,
            "--ctx-size",
            plan.ctx,
        )
        async with rllm(http, *options) as server:
            await closed_loop(http, server.url, plan.slots, 3, plan.body)
            full = await closed_loop(http, server.url, plan.slots, min(20, plan.duration_s), plan.body)
            rate = sum(a.is_whole for a in full) / (
                max(a.ended_at for a in full) - min(a.sent_at for a in full)
            )
            began = time.monotonic()
            samples: list[tuple[float, Footprint]] = []
            watching = asyncio.create_task(server.watch_footprint(samples, plan.sample_s))
            arrivals = poisson(plan.load * rate, plan.duration_s, seed=3)
            answers = await open_loop(http, server.url, arrivals, plan.body, first=10_000_000)
            watching.cancel()
            status = await server.terminate()
    samples = [(at - began, footprint) for at, footprint in samples]
    settled = [(at, f) for at, f in samples if at > plan.duration_s / 4]
    hours = [at / 3600 for at, _ in settled]
    per_hour = slope(hours, [f.rss_mib for _, f in settled])
    bad = [answer for answer in answers if not answer.is_whole]
    result.check(
        f"memory is flat: at most {plan.most_mib_per_hour:g} MiB per hour after the first quarter",
        per_hour <= plan.most_mib_per_hour,
        f"{per_hour:+.1f} MiB per hour; {settled[0][1].rss_mib:.0f} MiB then, {settled[-1][1].rss_mib:.0f} MiB at the end",
    )
    for name, values in (
        ("file descriptors", [f.num_fds for _, f in settled]),
        ("threads", [f.num_threads for _, f in settled]),
    ):
        third = max(1, len(values) // 3)
        growth = max(values[-third:]) - max(values[:third])
        result.check(
            f"no growth of {name}", growth <= 2, f"highest of the last third {growth:+d} over the first"
        )
    ends = Counter(answer.failure or answer.code or str(answer.status) for answer in bad)
    result.check(
        "every request is answered whole",
        not bad,
        f"{len(bad)} of {len(answers)} were not"
        + "".join(f"; {count} x {end}" for end, count in ends.items()),
    )
    result.check("SIGTERM ends it with 0", status == 0, f"{status}")
    x = [at for at, _ in samples]
    columns = ["from", "requests", "whole", "TTFT p50 s", "p95 s", "p99 s", "whole answer p95 s", "MiB"]
    result.tables.append(
        (f"In six parts, {plan.load * rate:.2f} requests/s", columns, _parts(plan, began, answers, samples))
    )
    result.series.append(Series("Private memory", x, {"MiB": [f.rss_mib for _, f in samples]}, y_label="MiB"))
    counts = {
        "fds": [float(f.num_fds) for _, f in samples],
        "threads": [float(f.num_threads) for _, f in samples],
    }
    result.series.append(Series("File descriptors and threads", x, counts))
    result.raw = {
        "rate": rate,
        "samples": [[at, vars(f)] for at, f in samples],
        "answers": len(answers),
        "bad": [a.row() for a in bad],
    }
    return result


def _parts(
    plan: SoakPlan,
    began: float,
    answers: list[Answer],
    samples: list[tuple[float, Footprint]],
    count: int = 6,
) -> list[list[object]]:
    """What grows slowly shows here."""
    rows: list[list[object]] = []
    span = plan.duration_s / count
    for number in range(count):
        some = [a for a in answers if number * span <= a.sent_at - began < (number + 1) * span]
        whole = [a for a in some if a.is_whole]
        ttfts = [a.ttft_s for a in whole if a.ttft_s is not None]
        memory = [f.rss_mib for at, f in samples if number * span <= at < (number + 1) * span]
        rows.append(
            [
                f"{number * span / 60:.1f} min",
                len(some),
                len(whole),
                *(round(percentile(ttfts, percent), 3) for percent in (50, 95, 99)),
                round(percentile([a.ended_at - a.sent_at for a in whole], 95), 3),
                round(max(memory, default=0.0), 1),
            ]
        )
    return rows
