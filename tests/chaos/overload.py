"""Five times more than the server can do: who is accepted is served in time, the others hear so at once."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.chaos import keyed
from tests.chaos.asking import Answer, body, prompt
from tests.chaos.keyed import Callers
from tests.chaos.load import closed_loop, open_loop, poisson
from tests.chaos.result import Result, Series, percentile
from tests.chaos.servers import Footprint, ServerProcess, llama_server, rllm

REFUSED = "server_is_overloaded"
AS_FREE = keyed.authorization(keyed.FREE)


@dataclass(frozen=True)
class OverloadPlan:
    model: Path
    duration_s: float = 60.0
    factor: float = 5.0
    threads: int = 0
    """0: as many as the server chooses."""
    slots: int = 8
    ctx: int = 512
    max_tokens: int = 32
    num_words: int = 24
    measure_s: float = 30.0
    peer: bool = True
    peer_binary: Path | None = None

    def body(self, number: int) -> dict[str, Any]:
        return body(prompt(number, self.num_words), self.max_tokens)


@dataclass
class Phase:
    """One load and what became of it."""

    load: float
    rate: float
    seconds: float
    answers: list[Answer]
    rss: list[float] = field(default_factory=list)

    @property
    def whole(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.is_whole]

    @property
    def ttfts(self) -> list[float]:
        return [answer.ttft_s for answer in self.whole if answer.ttft_s is not None]

    def goodput(self, slo_s: float) -> float:
        return sum(ttft <= slo_s for ttft in self.ttfts) / self.seconds


async def run(plan: OverloadPlan) -> Result:
    result = Result(
        "overload",
        f"Overload at {plan.factor:g}x capacity for {plan.duration_s:g} s, open loop",
        f"{plan.model.name}, {plan.slots} slots, Poisson arrivals, about {plan.num_words + 34} prompt tokens, "
        f"{plan.max_tokens} output tokens, streaming; the load generator runs on the same machine. rllm's "
        "clients send `x-request-ttft-ms` with the SLO; llama-server has no such thing.",
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
        with tempfile.TemporaryDirectory() as folder:
            keys = keyed.write_keys(Path(folder) / "keys.toml")
            async with rllm(http, *options, "--keys-file", keys, "--open-metrics") as server:
                capacity, slo_s, ours, callers = await _measure(http, server, plan)
        peer: list[Phase] = []
        if plan.peer:
            async with llama_server(http, plan.peer_binary, plan.model, plan.slots, plan.ctx) as other:
                for load in (0.5, 1.0, plan.factor):
                    seconds = plan.duration_s if load == plan.factor else plan.measure_s
                    peer.append(await _phase(http, other, plan, load, capacity, seconds, None))
    _judge(result, plan, capacity, slo_s, ours, peer)
    keyed.judge(result, callers)
    return result


async def _measure(
    http: aiohttp.ClientSession, server: ServerProcess, plan: OverloadPlan
) -> tuple[float, float, list[Phase], Callers]:
    await closed_loop(http, server.url, plan.slots, 3, plan.body, headers=AS_FREE)
    full = await closed_loop(http, server.url, 2 * plan.slots, plan.measure_s, plan.body, headers=AS_FREE)
    span = max(a.ended_at for a in full) - min(a.sent_at for a in full)
    capacity = sum(answer.is_whole for answer in full) / span
    half = await _phase(http, server, plan, 0.5, capacity, plan.measure_s, None)
    slo_s = 2 * percentile(half.ttfts, 95)
    phases = [half]
    callers = await keyed.both(
        http, server.url, plan.body, free_rate=0.5 * capacity, seconds=plan.measure_s / 2
    )
    for load in (0.8, 1.0):
        phases.append(await _phase(http, server, plan, load, capacity, plan.measure_s, slo_s))
    phases.append(await _phase(http, server, plan, plan.factor, capacity, plan.duration_s, slo_s))
    return capacity, slo_s, phases, callers


async def _phase(
    http: aiohttp.ClientSession,
    server: ServerProcess,
    plan: OverloadPlan,
    load: float,
    capacity: float,
    seconds: float,
    slo_s: float | None,
) -> Phase:
    arrivals = poisson(load * capacity, seconds, seed=round(load * 100))
    headers = {"x-request-ttft-ms": str(max(1, round(slo_s * 1000)))} if slo_s else {}
    samples: list[tuple[float, Footprint]] = []
    watching = asyncio.create_task(server.watch_footprint(samples, period_s=2))
    answers = await open_loop(
        http, server.url, arrivals, plan.body, headers=headers | AS_FREE, first=round(load * 1_000_000)
    )
    watching.cancel()
    await asyncio.sleep(1)
    return Phase(load, load * capacity, seconds, answers, [footprint.rss_mib for _, footprint in samples])


def _judge(
    result: Result, plan: OverloadPlan, capacity: float, slo_s: float, ours: list[Phase], peer: list[Phase]
) -> None:
    over = ours[-1]
    refused = [a for a in over.answers if a.status == 503 and a.code == REFUSED]
    other = [a for a in over.answers if not a.is_whole and a not in refused]
    times = [a.ended_at - a.sent_at for a in refused]
    hints = [float(a.retry_after) / 1000 for a in refused if a.retry_after]
    peak = max(phase.goodput(slo_s) for phase in ours)
    p99 = percentile(over.ttfts, 99)
    result.check(
        f"accepted requests keep the SLO of {slo_s:.2f} s (2 x TTFT p95 at 50 % load): p99 within 1.5 x SLO",
        p99 <= 1.5 * slo_s,
        f"p99 {p99:.2f} s, p95 {percentile(over.ttfts, 95):.2f} s of {len(over.ttfts)} accepted",
    )
    result.check(
        "the rest get 503 server_is_overloaded", not other, f"{len(refused)} refused, {len(other)} other"
    )
    result.check(
        "refusals take less than 50 ms p99",
        percentile(times, 99) < 0.05,
        f"p99 {percentile(times, 99) * 1000:.1f} ms, p50 {percentile(times, 50) * 1000:.1f} ms",
    )
    result.check(
        "each with a sensible Retry-After",
        len(hints) == len(refused) and all(0 < hint <= 120 for hint in hints),
        f"{min(hints, default=0):.2f} to {max(hints, default=0):.2f} s",
    )
    result.check(
        "goodput is at least 90 % of its peak",
        over.goodput(slo_s) >= 0.9 * peak,
        f"{over.goodput(slo_s):.2f} of {peak:.2f} requests/s within the SLO",
    )
    half = len(over.rss) // 2
    growth = max(over.rss[half:], default=0) - max(over.rss[:half], default=0)
    result.check(
        "memory is flat", growth < 16, f"highest of the second half {growth:+.1f} MiB over the first"
    )
    columns = [
        "server",
        "load",
        "sent/s",
        "whole",
        "refused",
        "lost",
        "TTFT p50 s",
        "p95 s",
        "p99 s",
        "goodput/s",
    ]
    rows = [_row("rllm", phase, slo_s) for phase in ours] + [
        _row("llama-server", phase, slo_s) for phase in peer
    ]
    result.tables.append(
        (f"Capacity {capacity:.2f} requests/s (closed loop); SLO {slo_s:.2f} s", columns, rows)
    )
    result.notes.append(
        "Lost: no whole answer within 60 s of the request's start, or cut. llama-server's queue is unbounded: what "
        "it accepts waits for its turn."
    )
    for name, phases in (("rllm", ours[-1:]), ("llama-server", peer[-1:])):
        for phase in phases:
            result.series.append(_ttft_series(name, phase))
    result.raw |= {
        "capacity": capacity,
        "slo_s": slo_s,
        "ours": [_raw(phase) for phase in ours],
        "peer": [_raw(phase) for phase in peer],
    }


def _row(server: str, phase: Phase, slo_s: float) -> list[Any]:
    refused = sum(answer.status == 503 for answer in phase.answers)
    lost = len(phase.answers) - len(phase.whole) - refused
    ttfts = [round(percentile(phase.ttfts, percent), 3) for percent in (50, 95, 99)]
    return [
        server,
        f"{phase.load:g}x",
        round(len(phase.answers) / phase.seconds, 1),
        len(phase.whole),
        refused,
        lost,
        *ttfts,
        round(phase.goodput(slo_s), 2),
    ]


def _ttft_series(name: str, phase: Phase) -> Series:
    began = min(answer.sent_at for answer in phase.answers)
    done = sorted((a.sent_at - began, a.ttft_s) for a in phase.whole if a.ttft_s is not None)
    return Series(
        f"{name} at {phase.load:g}x: TTFT by the time of sending",
        [at for at, _ in done],
        {"TTFT": [ttft for _, ttft in done]},
        y_label="seconds",
    )


def _raw(phase: Phase) -> dict[str, Any]:
    return {
        "load": phase.load,
        "rate": phase.rate,
        "seconds": phase.seconds,
        "rss_mib": phase.rss,
        "answers": [answer.row() for answer in phase.answers],
    }
