"""What it costs to see: tokens per second at 16 streams with everything on against everything off.

    python -m micro.observability [--pairs 20] [--on metrics,logs,tracing,scrape,ui] [--out DIR]

Two servers of the same file and settings are up for the whole run; the one that is not measured is idle.
They take turns in pairs, and who is first alternates. One measurement is 16 streams at once with unique
prompts of the same length and a fixed output length. The result is the geometric mean of the pairs' ratios,
on / off, with its 95 % interval (Student's t on the logarithms, and the bootstrap's beside it). Raw figures
of every pair and request are kept.

    off   --no-metrics --log-level error --no-ui
    on    metrics; JSON log of every request to a file; spans to a collector; /metrics read once a second;
          what /ui asks for, as often as it asks. The collector, the scraper and the page are this process.

What was on is not believed but counted: scrapes, log lines and spans' bytes are in the report.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import math
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import click
import numpy as np
from aiohttp import web

from micro.asking import at_once, unique
from rllm_bench.figures import stats
from rllm_bench.load.client import Endpoint
from rllm_bench.load.prompts import Prompt
from rllm_bench.records import environment
from rllm_bench.records.cells import Settings
from rllm_bench.records.vocabulary import Vocabulary, from_gguf
from rllm_bench.targets import processes
from rllm_bench.targets.rllm import Rllm
from rllm_bench.targets.server import running

STREAMS, SLOTS, CTX = 16, 16, 1024
PARTS = ("metrics", "logs", "tracing", "scrape", "ui")
GOAL = 0.97
SCRAPE_S = 1.0
UI_PATH, UI_S = "/v1/rllm/state", 1.0
"""What the page asks for while it is open, and how often."""


@dataclass
class Seen:
    """Proof that what was to be on was on."""

    counts: Counter[str] = field(default_factory=Counter)


def available(parts: list[str]) -> tuple[list[str], dict[str, str]]:
    """Which of the parts this checkout and this Python have, and why not the others."""
    options = _help()
    missing: dict[str, str] = {}
    if "--otlp-endpoint" not in options:
        missing["tracing"] = "rllm-serve has no --otlp-endpoint"
    elif importlib.util.find_spec("opentelemetry") is None:
        missing["tracing"] = "rllm[tracing] is not installed"
    if "--no-ui" not in options:
        missing["ui"] = "rllm-serve has no /ui"
    return [part for part in parts if part not in missing], {p: missing[p] for p in parts if p in missing}


def _help() -> str:
    command = [sys.executable, "-c", "from rllm.cli import main; main()", "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def switches(parts: list[str], collector: str) -> list[str]:
    """Options of a server with these parts on and the others off."""
    options = [] if "metrics" in parts else ["--no-metrics"]
    options += ["--no-ui"] if "ui" not in parts and "--no-ui" in _help() else []
    options += ["--log-format", "json", "--log-level", "info" if "logs" in parts else "error"]
    return options + (["--otlp-endpoint", collector] if "tracing" in parts else [])


@contextmanager
def servers(
    model: Path, threads: int, logs: Path, on: list[str], collector: str
) -> Iterator[dict[str, Endpoint]]:
    with contextlib.ExitStack() as stack:
        endpoints = {}
        for name, parts in (("on", on), ("off", [])):
            log = logs / f"{name}.log"
            log.unlink(missing_ok=True)
            settings = Settings(
                slots=SLOTS, ctx_per_slot=CTX, threads=threads, extra={"rllm": switches(parts, collector)}
            )
            server = stack.enter_context(running(Rllm("model", model), settings, log, ()))
            endpoints[name] = server.launch.endpoint
        yield endpoints


@asynccontextmanager
async def collecting(port: int, seen: Seen) -> AsyncIterator[None]:
    """An OpenTelemetry collector that takes everything and keeps nothing."""

    async def take(request: web.Request) -> web.Response:
        seen.counts["bytes of spans"] += len(await request.read())
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def _scrape(session: aiohttp.ClientSession, base: str, seen: Seen) -> None:
    while True:
        async with session.get(f"{base}/metrics") as response:
            response.raise_for_status()
            await response.read()
        seen.counts["scrapes of /metrics"] += 1
        await asyncio.sleep(SCRAPE_S)


async def _look(session: aiohttp.ClientSession, base: str, seen: Seen) -> None:
    """As the page does: everything at first, then what is new."""
    since = 0.0
    while True:
        async with session.get(f"{base}{UI_PATH}", params={"since": str(since)}) as response:
            response.raise_for_status()
            since = (await response.json())["time"]
        seen.counts[f"answers of {UI_PATH}"] += 1
        await asyncio.sleep(UI_S)


@asynccontextmanager
async def watching(
    session: aiohttp.ClientSession, base: str, on: list[str], seen: Seen
) -> AsyncIterator[None]:
    """The scraper and the page, while the block lasts."""
    watchers = {"scrape": _scrape, "ui": _look}
    tasks = [
        asyncio.create_task(watch(session, base, seen)) for part, watch in watchers.items() if part in on
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(result, asyncio.CancelledError):
                raise RuntimeError("a watcher ended early") from result


async def measure(http: aiohttp.ClientSession, endpoint: Endpoint, prompts: list[Prompt]) -> dict[str, Any]:
    """One batch of streams, all sent at once."""
    answers = await at_once(http, endpoint, prompts)
    if failed := [answer.error for answer in answers if not answer.ok]:
        raise RuntimeError(f"{len(failed)} of {len(answers)} requests failed: {failed[0]}")
    if short := [a.completion_tokens for a in answers if a.completion_tokens != a.max_tokens]:
        raise RuntimeError(f"an answer has {short[0]} tokens instead of {answers[0].max_tokens}")
    seconds = max(answer.last_us or 0 for answer in answers) / 1e6
    rows = [
        {
            "sent": a.sent_us / 1e6,
            "ttft": ((a.first_us or 0) - a.sent_us) / 1e6,
            "last": (a.last_us or 0) / 1e6,
            "tokens": a.completion_tokens,
        }
        for a in answers
    ]
    return {"tok/s": sum(a.max_tokens for a in answers) / seconds, "seconds": seconds, "requests": rows}


@dataclass(frozen=True)
class Plan:
    on: list[str]
    pairs: int
    num_words: int
    max_tokens: int
    seed: int


async def run(
    endpoints: dict[str, Endpoint], vocabulary: Vocabulary, plan: Plan, port: int, seen: Seen
) -> list[dict[str, Any]]:
    """One row per pair; one pair before them is not counted."""
    rows: list[dict[str, Any]] = []
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Content-Type": "application/json"}
    async with collecting(port, seen), aiohttp.ClientSession(connector=connector, headers=headers) as session:
        for pair in range(-1, plan.pairs):
            row: dict[str, Any] = {"first": "on" if pair % 2 else "off"}
            for name in ("on", "off") if pair % 2 else ("off", "on"):
                seed = plan.seed * 10_000 + pair + 1  # no prompt is seen twice by a server
                prompts = unique(vocabulary, STREAMS, plan.num_words, plan.max_tokens, seed)
                watchers = plan.on if name == "on" else []
                async with watching(session, endpoints[name].base_url, watchers, seen):
                    row[name] = await measure(session, endpoints[name], prompts)
            if pair >= 0:
                rows.append(row)
                speeds = f"on {row['on']['tok/s']:.1f}, off {row['off']['tok/s']:.1f} tok/s"
                click.echo(f"pair {pair + 1} of {plan.pairs}: {speeds}", err=True)
        await asyncio.sleep(6 if "tracing" in plan.on else 0)  # the last spans are on their way
    return rows


def student_t(freedom: int) -> float:
    """The 97.5 % quantile, by Fisher's expansion around the normal one; three digits from 4 degrees on."""
    z = statistics.NormalDist().inv_cdf(0.975)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(sum(term / freedom**power for power, term in enumerate(terms)))


def judge(rows: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """The ratio on / off with its intervals; recomputed from the raw rows alone."""
    logs = np.log([row["on"]["tok/s"] / row["off"]["tok/s"] for row in rows])
    centre, half = float(logs.mean()), 0.0
    if len(logs) > 1:
        half = student_t(len(logs) - 1) * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    bootstrap = stats.interval(stats.resample(logs, stats.mean, np.random.default_rng(seed), 10_000))
    return {
        "ratio": math.exp(centre),
        "interval": [math.exp(centre - half), math.exp(centre + half)],
        "bootstrap": [math.exp(bootstrap.low), math.exp(bootstrap.high)],
        **{
            f"median tok/s {name}": statistics.median(row[name]["tok/s"] for row in rows)
            for name in ("on", "off")
        },
    }


def proof(endpoint_log: Path, seen: Seen) -> dict[str, int]:
    lines = endpoint_log.read_text().splitlines()
    return {**seen.counts, "request lines in the log": sum('"event":"request"' in line for line in lines)}


def report(record: dict[str, Any]) -> str:
    result, plan = record["result"], record["plan"]
    low, high = result["interval"]
    verdict = (
        f"the interval lies above {GOAL}" if low > GOAL else f"**the interval does not lie above {GOAL}**"
    )
    pairs = [
        f"| {i} | {row['first']} | {row['on']['tok/s']:.1f} | {row['off']['tok/s']:.1f} | "
        f"{row['on']['tok/s'] / row['off']['tok/s']:.3f} |"
        for i, row in enumerate(record["pairs"], start=1)
    ]
    counted = [f"- {what}: {number}" for what, number in record["seen"].items()]
    left_out = [f"- not on: {part} ({why})" for part, why in record["missing"].items()]
    cpu, git = record["environment"]["cpu"], record["environment"]["git"]
    return "\n".join(
        [
            "# What it costs to see",
            "",
            f"Throughput with {', '.join(plan['on'])} on, over throughput with everything off: "
            f"**{result['ratio']:.3f}, 95 % interval {low:.3f} to {high:.3f}** over {len(pairs)} interleaved "
            f"pairs; {verdict}. Bootstrap: {result['bootstrap'][0]:.3f} to {result['bootstrap'][1]:.3f}. "
            f"Medians: {result['median tok/s on']:.1f} and {result['median tok/s off']:.1f} tok/s.",
            "",
            f"{STREAMS} streams at once, prompts of {plan['num_words']} words, {plan['max_tokens']} tokens "
            f"out, {record['model']['name']}, {SLOTS} slots of {CTX} tokens, {plan['threads']} threads, "
            f"{cpu['model']}, {cpu['cores_usable']} cores; load generator, scraper and collector run on the "
            f"same machine. Commit {git['commit']}{' and changes' if git['dirty'] else ''}. "
            "Written by `python -m micro.observability`; raw figures in raw.json.",
            "",
            "Seen on the server that had it on, the pair before the first included:",
            "",
            *counted,
            *left_out,
            "",
            "| pair | first | on, tok/s | off, tok/s | ratio |",
            "| --- | --- | --- | --- | --- |",
            *pairs,
            "",
        ]
    )


@click.command(help=__doc__)
@click.option("--model", type=click.Path(path_type=Path, exists=True), default=Path("models/q4.gguf"))
@click.option("--pairs", default=20, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--words", "num_words", default=40, show_default=True)
@click.option("--max-tokens", default=96, show_default=True)
@click.option("--on", default=",".join(PARTS), show_default=True, help="What is on, with commas.")
@click.option("--seed", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("reports/observability-overhead"))
def main(
    model: Path, pairs: int, threads: int, num_words: int, max_tokens: int, on: str, seed: int, out: Path
) -> None:
    wanted = [part for part in on.split(",") if part]
    if unknown := set(wanted) - set(PARTS):
        raise click.UsageError(f"--on {min(unknown)}: there is {', '.join(PARTS)}")
    if "scrape" in wanted and "metrics" not in wanted:
        raise click.UsageError("--on scrape needs metrics")
    parts, missing = available(wanted)
    plan, seen, port = Plan(parts, pairs, num_words, max_tokens, seed), Seen(), processes.free_port()
    logs = Path(".cache") / "overhead-logs"
    with servers(model, threads, logs, parts, f"http://127.0.0.1:{port}") as endpoints:
        rows = asyncio.run(run(endpoints, from_gguf(model), plan, port, seen))
    record = {
        "environment": environment.describe(),
        "model": {"name": model.name, "sha256": environment.sha256(model)},
        "plan": {**vars(plan), "threads": threads},
        "missing": missing,
        "seen": proof(logs / "on.log", seen),
        "result": judge(rows, seed),
        "pairs": rows,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "raw.json").write_text(json.dumps(record, indent=1))
    (out / "report.md").write_text(report(record))
    click.echo(report(record).split("\n")[2])


if __name__ == "__main__":
    main()
