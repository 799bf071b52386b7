"""What the prefix store is worth: time to the first token with more prefixes than the cache can hold.

    python bench/prefix_store.py [--prefixes 12] [--slots 4] [--rounds 6] [--disk-mb 32] [--out DIR]

Two servers that differ in nothing but the store, up for the whole run; they take turns, in an order that is
shuffled for every round. A round asks once for each of --prefixes prefixes of --words words, each followed by
20 new words; the cache has a place for --slots of them. The first round is the same for both and is not
counted. With --disk-mb a third server has so little memory (32: two prefixes of the default model), and a
folder for the rest.
Prints medians over the requests, the interval of the median of the paired ratios (95 %, bootstrap; a pair is
the same prefix in the same round), and what the servers' own counters say. Raw figures are kept as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import platform
import random
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import click
import numpy as np
from prometheus_client.parser import text_string_to_metric_families
from tabulate import tabulate

from rllm_bench.load.client import Endpoint
from rllm_bench.load.direct import open_url
from rllm_bench.records import environment
from rllm_bench.records.runs import Settings
from rllm_bench.records.vocabulary import Vocabulary, from_gguf
from rllm_bench.targets.rllm import Rllm
from rllm_bench.targets.server import running
from versus_llama_server import Asker, must_succeed, ratio_interval

COUNTERS = (
    "prefix_hit_tokens",
    "prefix_spills",
    "prefix_spill_seconds",
    "prefix_restores",
    "prefix_restored_tokens",
    "prefix_restore_seconds",
    "prefix_store_failures",
)
Times = dict[str, list[float]]
"""Server -> seconds to the first token, in the order of rounds and prefixes."""


@contextlib.contextmanager
def servers(
    model: Path, slots: int, ctx: int, threads: int, logs: Path, variants: dict[str, list[str]]
) -> Iterator[dict[str, Endpoint]]:
    with contextlib.ExitStack() as stack:
        up: dict[str, Endpoint] = {}
        for name, options in variants.items():
            settings = Settings(slots=slots, ctx_per_slot=ctx, threads=threads, extra={"rllm": options})
            log = logs / f"prefix-store-{name.replace(' ', '-')}.log"
            server = stack.enter_context(running(Rllm("model", model), settings, log, ()))
            up[name] = server.launch.endpoint
        yield up


async def measure(
    endpoints: dict[str, Endpoint],
    vocabulary: Vocabulary,
    *,
    prefixes: int,
    words: int,
    rounds: int,
    users: int,
    seed: int,
) -> Times:
    times: Times = {name: [] for name in endpoints}
    timeout = aiohttp.ClientTimeout(total=600)
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        askers = {name: Asker(session, endpoint, vocabulary) for name, endpoint in endpoints.items()}
        rng = random.Random(seed)
        some = next(iter(askers.values()))
        shared = [some.words(words, rng) for _ in range(prefixes)]
        for number in range(rounds + 1):
            prompts = [prefix + some.words(20, rng) for prefix in shared]
            order = list(askers)
            rng.shuffle(order)
            for name in order:
                found = await one_round(askers[name], prompts, users)
                times[name] += found if number else []
    return times


async def one_round(asker: Asker, prompts: list[str], users: int) -> list[float]:
    """Each prompt once, ``users`` at a time; seconds to the first token in the order of the prompts."""
    found = [0.0] * len(prompts)
    waiting = list(enumerate(prompts))[::-1]

    async def user() -> None:
        while waiting:
            index, prompt = waiting.pop()
            answer = await asker.ask(prompt, 8)
            must_succeed([answer])
            found[index] = answer.ttft

    await asyncio.gather(*(user() for _ in range(users)))
    return found


def counters(endpoint: Endpoint) -> dict[str, float]:
    with open_url(f"{endpoint.base_url}/metrics", 10) as response:
        families = list(text_string_to_metric_families(response.read().decode()))
    values = {sample.name: sample.value for family in families for sample in family.samples}
    return {name: values.get(f"rllm_{name}_total", 0.0) for name in COUNTERS}


def table(times: Times, counted: dict[str, dict[str, float]]) -> str:
    rows = []
    for name, found in times.items():
        ratio, low, high = ratio_interval(found, times["off"], 0)
        told = counted[name]
        rows.append(
            (
                name,
                f"{1e3 * statistics.median(found):.0f}",
                f"{1e3 * float(np.percentile(found, 95)):.0f}",
                "" if name == "off" else f"{ratio:.2f} ({low:.2f}-{high:.2f})",
                f"{told['prefix_restores']:.0f}",
                f"{1e3 * told['prefix_restore_seconds'] / max(1, told['prefix_restores']):.1f}",
                f"{told['prefix_spills']:.0f}",
                f"{1e3 * told['prefix_spill_seconds'] / max(1, told['prefix_spills']):.1f}",
            )
        )
    head = ("store", "TTFT p50 ms", "p95 ms", "ratio to off", "restores", "ms each", "spills", "ms each")
    return tabulate(rows, head, tablefmt="github", disable_numparse=True)


@click.command(help=__doc__)
@click.option("--model", type=click.Path(path_type=Path, exists=True), default=Path("models/q4.gguf"))
@click.option("--prefixes", default=12, show_default=True)
@click.option("--words", default=600, show_default=True)
@click.option("--slots", default=4, show_default=True)
@click.option("--rounds", default=6, show_default=True, help="Counted ones; at least 2.")
@click.option("--users", default=1, show_default=True, help="Requests at the same time.")
@click.option("--threads", default=2, show_default=True)
@click.option(
    "--disk-mb", default=0, show_default=True, help="Also a server with so much memory and a folder."
)
@click.option("--seed", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("reports/prefix-store"))
def main(
    model: Path,
    prefixes: int,
    words: int,
    slots: int,
    rounds: int,
    users: int,
    threads: int,
    disk_mb: int,
    seed: int,
    out: Path,
) -> None:
    vocabulary = from_gguf(model)
    ctx = 256 * -(-(words + 100) // 256)
    with tempfile.TemporaryDirectory(prefix="rllm-prefix-store-") as folder:
        variants = {"off": ["--prefix-store-mb", "0"], "memory": ["--prefix-store-mb", "1024"]}
        if disk_mb:
            variants["disk"] = ["--prefix-store-mb", str(disk_mb), "--prefix-store-dir", folder]
        logs = Path(".cache") / "prefix-store-logs"
        with servers(model, slots, ctx, threads, logs, variants) as endpoints:
            sizes = {"prefixes": prefixes, "words": words, "rounds": rounds, "users": users, "seed": seed}
            times = asyncio.run(measure(endpoints, vocabulary, **sizes))
            counted = {name: counters(endpoint) for name, endpoint in endpoints.items()}
    settings = (
        f"{prefixes} prefixes of {words} words, {users} at a time, {slots} slots of {ctx} tokens, "
        f"{threads} threads, {rounds} rounds, seed {seed}, {model.name}, {platform.node()}"
    )
    text = f"# The prefix store\n\n{settings}\n\n{table(times, counted)}\n"
    out.mkdir(parents=True, exist_ok=True)
    record = {
        "environment": environment.describe(),
        "model": environment.sha256(model),
        "settings": settings,
        "ttft_s": times,
        "counters": counted,
    }
    (out / "raw.json").write_text(json.dumps(record, indent=1))
    (out / "report.md").write_text(text)
    click.echo(text)


if __name__ == "__main__":
    main()
