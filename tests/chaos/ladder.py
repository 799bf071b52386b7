"""A ramp up and down again, and what the server gave up meanwhile."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.chaos.asking import Answer, body, prompt
from tests.chaos.load import closed_loop, open_loop
from tests.chaos.result import Result, Series
from tests.chaos.servers import ServerProcess, rllm


@dataclass(frozen=True)
class LadderPlan:
    models: tuple[Path, ...]
    """Largest first; each one's smaller variant is the next."""
    rungs: tuple[str, ...] = ("1.5:cap=16", "2.5:shed=0", "3.5:route", "6:refuse")
    threads: int = 0
    """0: as many as the server chooses."""
    slots: int = 4
    ctx: int = 512
    max_tokens: int = 48
    up_s: float = 60.0
    peak: float = 6.0
    """Times the capacity of the largest model."""
    hold_s: float = 2.0


async def run(plan: LadderPlan) -> Result:
    names = [path.stem for path in plan.models]
    smaller = [f"{big}={small}" for big, small in itertools.pairwise(names)]
    result = Result(
        "ladder",
        "The degradation ladder under a ramp",
        f"{' -> '.join(names)}, {plan.slots} slots each, --degrade {' '.join(plan.rungs)} --degrade-hold-s "
        f"{plan.hold_s:g}; arrivals from 0 to {plan.peak:g}x the capacity of {names[0]} and back to 0; every "
        "fourth request has priority 1 (less important)",
    )
    options: list[object] = [
        "--threads",
        plan.threads,
        "--slots",
        plan.slots,
        "--ctx-size",
        plan.ctx,
        "--degrade-hold-s",
        plan.hold_s,
    ]
    options += [part for path in plan.models for part in ("--gguf", path)]
    options += [part for rung in plan.rungs for part in ("--degrade", rung)]
    options += [part for pair in smaller for part in ("--smaller", pair)]
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
        rllm(http, *options) as server,
    ):
        full = await closed_loop(http, server.url, plan.slots, 8, lambda n: body(prompt(n), plan.max_tokens))
        capacity = sum(a.is_whole for a in full) / (
            max(a.ended_at for a in full) - min(a.sent_at for a in full)
        )
        await server.wait_idle(http)
        levels: list[tuple[float, float]] = []
        began = time.monotonic()
        watching = asyncio.create_task(_watch(http, server, names[0], began, levels))
        arrivals = _ramp(plan.peak * capacity, plan.up_s)
        answers = await open_loop(http, server.url, arrivals, lambda n: _body(plan, n))
        await server.wait_idle(http)
        await asyncio.sleep(plan.hold_s * (len(plan.rungs) + 1))
        watching.cancel()
    _judge(result, plan, names, capacity, began, levels, answers)
    return result


def _body(plan: LadderPlan, number: int) -> dict[str, Any]:
    return body(prompt(number), plan.max_tokens, priority=int(number % 4 == 3))


def _ramp(peak_rate: float, up_s: float) -> list[float]:
    """Evenly spaced arrivals at a rate that grows for ``up_s`` and falls as long."""
    times, now = [], 0.5
    while now < 2 * up_s:
        times.append(now)
        share = now / up_s if now < up_s else 2 - now / up_s
        now += 1 / max(0.5, peak_rate * share)
    return times


async def _watch(
    http: aiohttp.ClientSession,
    server: ServerProcess,
    model: str,
    began: float,
    levels: list[tuple[float, float]],
) -> None:
    while True:
        level = await server.metric(http, "rllm_degradation_level", model=model)
        levels.append((time.monotonic() - began, level))
        await asyncio.sleep(0.25)


def _judge(
    result: Result,
    plan: LadderPlan,
    names: list[str],
    capacity: float,
    began: float,
    levels: list[tuple[float, float]],
    answers: list[Answer],
) -> None:
    top = max((level for _, level in levels), default=0)
    marked = Counter(answer.degraded or "-" for answer in answers if answer.is_whole)
    codes = Counter(answer.code for answer in answers if answer.code)
    wrong = [answer for answer in answers if not answer.is_typed]
    capped = [a for a in answers if a.degraded and "max_tokens" in a.degraded and a.is_whole]
    routed = [a for a in answers if a.degraded and "model=" in a.degraded]
    silent = [
        a
        for a in answers
        if a.is_whole and not a.degraded and (a.model != names[0] or a.num_tokens != plan.max_tokens)
    ]
    result.check(
        "the level rises to the top rung",
        top == len(plan.rungs),
        f"highest level {top:.0f} of {len(plan.rungs)}",
    )
    result.check(
        "and is back at 0 after the ramp", bool(levels) and levels[-1][1] == 0, f"{levels[-1][1]:.0f}"
    )
    result.check("answers are capped and say so", bool(capped), f"{len(capped)}")
    result.check("low priority is shed", codes["low_priority_shed"] > 0, f"{codes['low_priority_shed']}")
    result.check("a smaller variant answers and says so", bool(routed), f"{len(routed)} by {names[1]}")
    result.check("nothing is degraded without the header", not silent, f"{len(silent)}")
    result.check(
        "everybody gets an answer or a typed error", not wrong, f"{len(wrong)} of {len(answers)} did not"
    )
    first = {
        level: next((round(at, 1) for at, seen in levels if seen >= level), None) for level in range(1, 5)
    }
    rows = [[i + 1, rung, first.get(i + 1)] for i, rung in enumerate(plan.rungs)]
    result.tables.append(
        (f"Capacity of {names[0]}: {capacity:.2f} requests/s", ["level", "rung", "first reached, s"], rows)
    )
    result.tables.append(
        (
            "Answers with 200, by x-rllm-degraded",
            ["header", "answers"],
            [list(p) for p in marked.most_common()],
        )
    )
    result.tables.append(("Refusals", ["code", "count"], [list(pair) for pair in codes.most_common()]))
    result.series.append(
        Series(
            "Level",
            [at for at, _ in levels],
            {"level": [level for _, level in levels]},
            y_label="rung",
            steps=True,
        )
    )
    result.series.append(_kinds(answers, began, names))
    result.raw = {"capacity": capacity, "levels": levels, "answers": [answer.row() for answer in answers]}


def _kinds(answers: list[Answer], began: float, names: list[str], bin_s: float = 3.0) -> Series:
    last = max(answer.sent_at for answer in answers) - began
    edges = [i * bin_s for i in range(int(last / bin_s) + 1)]
    lines = {kind: [0.0] * len(edges) for kind in ("sent", "full answer", "capped or smaller", "refused")}
    for answer in answers:
        slot = min(len(edges) - 1, int((answer.sent_at - began) / bin_s))
        kind = "refused" if answer.code else "capped or smaller" if answer.degraded else "full answer"
        lines["sent"][slot] += 1 / bin_s
        lines[kind][slot] += 1 / bin_s
    return Series("Requests by fate", edges, lines, y_label="requests/s")
