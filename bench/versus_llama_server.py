"""rllm-serve against llama-server, over HTTP, the same file, slots, context and threads, in one run.

    python bench/versus_llama_server.py [--pairs 7] [--only unique-8,shared] [--out DIR]

llama-server is the one on the PATH, else the one inside xllamacpp, whose wheel is built for any x86-64
processor and slower than one built for this machine; the report says which it was.

All servers are up and idle but for the one that is measured; they take turns, in an order that is shuffled,
because a small machine changes by more than the differences looked for. Every pair has freshly started
servers, warmed with a few requests: two starts of one program on one machine can differ by several percent.
llama-server runs in both its KV layouts, and the better of the two is the peer. Every figure is a median over
the pairs; the interval is that of the median of the pairwise ratios (95 %, bootstrap). Raw figures of every
pair are kept as JSON.

Scenarios, with greedy sampling and a fixed output length:

    unique-N      N users in a closed loop, unique 100-word prompts, 64 tokens out, six requests each,
                  24 in all at least
    shared        8 requests at once, a fresh 600-word prefix in common and 20 words of their own, 32 out
    multi-turn    8 conversations of 6 turns at once, 30 words more each turn, 24 out; TTFT from turn 2 on
    interference  6 streams decode, then a 1,500-word prompt arrives
    oversubscribed  16 streams want 1.5 times the cells of a unified cache
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import click
import msgspec
import numpy as np
from tabulate import tabulate

from rllm_bench.load.client import Endpoint
from rllm_bench.load.sse import EventReader
from rllm_bench.records import environment
from rllm_bench.records.runs import Settings
from rllm_bench.records.vocabulary import Vocabulary, from_gguf
from rllm_bench.targets.llama_server import LlamaServer
from rllm_bench.targets.rllm import Rllm
from rllm_bench.targets.server import running

SLOTS, CTX = 16, 2048
OVERSUBSCRIBED_CELLS, OVERSUBSCRIBED_STREAMS = 4096, 16
REQUESTS_PER_USER = 6
"""Enough that the first wave of everybody at once, and the last, are not most of what is measured."""
FEWEST_REQUESTS = 24
"""Of few users: six requests of one take four seconds, in which this machine can be 5 % off."""
FIGURES = Callable[["Asker", random.Random], Awaitable[dict[str, float]]]


@dataclass
class Answer:
    """One answer as it arrived; times are on the monotonic clock."""

    sent: float
    times: list[float] = field(default_factory=list)
    text: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    failed: str | None = None

    @property
    def ttft(self) -> float:
        return self.times[0] - self.sent

    @property
    def gaps(self) -> list[tuple[float, float]]:
        """(when, how long) of every pause between two pieces."""
        return [(after, after - before) for before, after in zip(self.times, self.times[1:], strict=False)]


def random_words(vocabulary: Vocabulary, count: int, rng: random.Random) -> str:
    return "".join(f" {word}" for word in rng.choices(vocabulary.words, k=count))


class Asker:
    """Sends prompts to one server. Everything that is asked is words of one token each."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: Endpoint, vocabulary: Vocabulary) -> None:
        self._session = session
        self._endpoint = endpoint
        self._vocabulary = vocabulary

    def words(self, count: int, rng: random.Random) -> str:
        return random_words(self._vocabulary, count, rng)

    async def ask(self, prompt: str, max_tokens: int, answer: Answer | None = None) -> Answer:
        answer = answer or Answer(0.0)
        body = {
            "model": self._endpoint.model,
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._endpoint.body,
        }
        if self._endpoint.prompt_format == "chat":
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        answer.sent = time.monotonic()
        try:
            async with self._session.post(self._endpoint.url, data=msgspec.json.encode(body)) as response:
                if response.status != 200:
                    answer.failed = f"{response.status} {(await response.text())[:200]}"
                    return answer
                await self._read(response, answer)
        except (aiohttp.ClientError, ConnectionError) as error:
            answer.failed = f"{type(error).__name__}: {error}"
        return answer

    @staticmethod
    async def _read(response: aiohttp.ClientResponse, answer: Answer) -> None:
        reader = EventReader()
        while data := await response.content.readany():
            now = time.monotonic()
            for chunk in reader.feed(data):
                if chunk.error is not None:
                    answer.failed = "an error in the stream"
                text = "".join(choice.content or "" for choice in chunk.choices or ())
                if text:
                    answer.text += text
                    answer.times.append(now)
                if chunk.usage is not None:
                    answer.tokens = chunk.usage.completion_tokens or 0
                    answer.prompt_tokens = chunk.usage.prompt_tokens or 0
                    if chunk.usage.prompt_tokens_details is not None:
                        answer.cached_tokens = chunk.usage.prompt_tokens_details.cached_tokens or 0


def per_second(answers: list[Answer], began: float) -> float:
    return sum(answer.tokens for answer in answers) / (time.monotonic() - began)


def must_succeed(answers: list[Answer]) -> None:
    if failed := [answer.failed for answer in answers if answer.failed]:
        raise RuntimeError(f"{len(failed)} of {len(answers)} requests failed: {failed[0]}")


# --- scenarios ----------------------------------------------------------------------------------------


def unique(users: int) -> FIGURES:
    async def scenario(asker: Asker, rng: random.Random) -> dict[str, float]:
        prompts = [asker.words(100, rng) for _ in range(max(FEWEST_REQUESTS, REQUESTS_PER_USER * users))]
        answers: list[Answer] = []

        async def user() -> None:
            while prompts:
                answers.append(await asker.ask(prompts.pop(), 64))

        began = time.monotonic()
        await asyncio.gather(*(user() for _ in range(users)))
        speed = per_second(answers, began)
        must_succeed(answers)
        gaps = [gap for answer in answers for _, gap in answer.gaps]
        return {
            "tok/s": speed,
            "TTFT p50 ms": 1e3 * statistics.median(answer.ttft for answer in answers),
            "ITL p50 ms": 1e3 * statistics.median(gaps),
            "ITL p99 ms": 1e3 * float(np.percentile(gaps, 99)),
        }

    return scenario


async def shared(asker: Asker, rng: random.Random) -> dict[str, float]:
    prefix = asker.words(600, rng)
    began = time.monotonic()
    answers = await asyncio.gather(*(asker.ask(prefix + asker.words(20, rng), 32) for _ in range(8)))
    speed = per_second(answers, began)
    must_succeed(answers)
    return {
        "tok/s": speed,
        "TTFT p95 ms": 1e3 * float(np.percentile([answer.ttft for answer in answers], 95)),
    }


async def multi_turn(asker: Asker, rng: random.Random) -> dict[str, float]:
    later: list[float] = []

    async def conversation() -> None:
        text = asker.words(60, rng)
        for turn in range(6):
            answer = await asker.ask(text, 24)
            must_succeed([answer])
            if turn:
                later.append(answer.ttft)
            text += answer.text + asker.words(30, rng)

    await asyncio.gather(*(conversation() for _ in range(8)))
    return {
        "TTFT p50 ms": 1e3 * statistics.median(later),
        "TTFT p95 ms": 1e3 * float(np.percentile(later, 95)),
    }


async def interference(asker: Asker, rng: random.Random) -> dict[str, float]:
    streams = [Answer(0.0) for _ in range(6)]
    tasks = [asyncio.create_task(asker.ask(asker.words(30, rng), 400, answer)) for answer in streams]
    while not all(len(answer.times) > 10 or answer.failed for answer in streams):  # noqa: ASYNC110 # filled by tasks
        await asyncio.sleep(0.02)
    newcomer = await asker.ask(asker.words(1500, rng), 4)
    must_succeed([newcomer, *streams])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    window = (newcomer.sent, newcomer.times[0])
    gaps = [gap for answer in streams for at, gap in answer.gaps if at > window[0] and at - gap < window[1]]
    return {
        "ITL p99 ms": 1e3 * float(np.percentile(gaps, 99)),
        "ITL p50 ms": 1e3 * statistics.median(gaps),
        "newcomer TTFT ms": 1e3 * newcomer.ttft,
    }


async def oversubscribed(asker: Asker, rng: random.Random) -> dict[str, float]:
    each = OVERSUBSCRIBED_CELLS * 3 // 2 // OVERSUBSCRIBED_STREAMS
    out = each - 100
    began = time.monotonic()
    answers = await asyncio.gather(
        *(asker.ask(asker.words(100, rng), out) for _ in range(OVERSUBSCRIBED_STREAMS))
    )
    return {
        "finished": sum(1 for answer in answers if not answer.failed and answer.tokens == out),
        "tok/s": per_second(answers, began),
    }


async def warm(asker: Asker, rng: random.Random) -> dict[str, float]:
    """Steps of all sizes, and nothing to report."""
    prompts = [asker.words(100 - 4 * number, rng) for number in range(SLOTS)]
    answers = await asyncio.gather(*(asker.ask(prompt, 40 - 2 * n) for n, prompt in enumerate(prompts)))
    must_succeed(answers)
    return {}


SCENARIOS: dict[str, FIGURES] = {
    "unique-1": unique(1),
    "unique-8": unique(8),
    "unique-16": unique(16),
    "shared": shared,
    "multi-turn": multi_turn,
    "interference": interference,
    "oversubscribed": oversubscribed,
}


# --- the run ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def servers(model: Path, threads: int, logs: Path, *, cells: int = 0) -> Iterator[dict[str, Endpoint]]:
    """Every server, up and ready. With ``cells``: unified caches of so many cells in all."""
    options = [f"--kv-cells={cells}", "--kv=unified"] if cells else []
    settings = Settings(slots=SLOTS, ctx_per_slot=CTX, threads=threads, extra={"rllm": options})
    peers = {"llama-server unified": ["--kv-unified"], "llama-server split": []}
    with contextlib.ExitStack() as stack:
        up = {"rllm": stack.enter_context(running(Rllm("q4", model), settings, logs / "rllm.log", ()))}
        for name, extra in peers.items():
            if cells and not extra:
                continue
            per_slot = cells // SLOTS if cells else CTX
            theirs = Settings(
                slots=SLOTS, ctx_per_slot=per_slot, threads=threads, extra={"llama-server": extra}
            )
            log = logs / f"{name.replace(' ', '-')}.log"
            up[name] = stack.enter_context(running(LlamaServer("q4", model), theirs, log, ()))
        yield {name: server.launch.endpoint for name, server in up.items()}


def client() -> aiohttp.ClientSession:
    """A connection for each request, as many at once as are asked for."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=600),
        headers={"Content-Type": "application/json"},
    )


def shuffled(names: Iterable[str], seed: str) -> list[str]:
    order = list(names)
    random.Random(seed).shuffle(order)
    return order


async def measure(
    endpoints: dict[str, Endpoint],
    vocabulary: Vocabulary,
    label: str,
    scenario: FIGURES,
    pair: int,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Figures of one scenario by server, one after the other."""
    found: dict[str, dict[str, float]] = {}
    async with client() as session:
        for name in shuffled(endpoints, f"{seed}-{label}-{pair}"):
            # unique to the server and the scenario: no cache is warm by accident
            rng = random.Random(f"{seed}-{label}-{pair}-{name}")
            found[name] = await scenario(Asker(session, endpoints[name], vocabulary), rng)
    return found


def ratio_interval(ours: list[float], theirs: list[float], seed: int) -> tuple[float, float, float]:
    """Median of the pairwise ratios and its 95 % interval."""
    ratios = np.array(ours) / np.array(theirs)
    draws = np.random.default_rng(seed).choice(ratios, size=(10_000, len(ratios)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(np.median(ratios)), float(low), float(high)


def compared(ours: list[float], theirs: list[float]) -> tuple[str, str]:
    """Ratio and interval; dashes where the peer's figure is nothing."""
    if not all(theirs):
        return "–", "–"
    ratio, low, high = ratio_interval(ours, theirs, 0)
    return f"{ratio:.2f}", f"{low:.2f}-{high:.2f}"


def better(found: dict[str, list[dict[str, float]]], figure: str) -> str:
    """The peer that does better by this figure's median."""
    medians = {
        name: statistics.median(row[figure] for row in rows) for name, rows in found.items() if name != "rllm"
    }
    best = max if figure in ("tok/s", "finished") else min
    return best(medians, key=lambda name: medians[name])


def table(results: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    rows = []
    for scenario, found in results.items():
        for figure in found["rllm"][0]:
            peer = better(found, figure)
            ours, theirs = ([row[figure] for row in found[name]] for name in ("rllm", peer))
            medians = (f"{statistics.median(ours):.1f}", f"{statistics.median(theirs):.1f}")
            rows.append((scenario, figure, *medians, peer, *compared(ours, theirs)))
    head = ("scenario", "figure", "rllm", "peer", "the better peer", "ratio", "95 % interval")
    return tabulate(rows, head, tablefmt="github", disable_numparse=True)


@click.command(help=__doc__)
@click.option("--model", type=click.Path(path_type=Path, exists=True), default=Path("models/q4.gguf"))
@click.option("--pairs", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--only", default=",".join(SCENARIOS), help="Scenarios, with commas.")
@click.option("--seed", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("reports/versus-llama-server"))
def main(model: Path, pairs: int, threads: int, only: str, seed: int, out: Path) -> None:
    if unknown := set(only.split(",")) - set(SCENARIOS):
        text = f"no scenario {', '.join(sorted(unknown))}; there is {', '.join(SCENARIOS)}"
        raise click.BadParameter(text, param_hint="--only")
    out.mkdir(parents=True, exist_ok=True)
    vocabulary = from_gguf(model)
    settings = f"{SLOTS} slots of {CTX} tokens, {threads} threads, {pairs} pairs asked for, seed {seed}"
    peer = LlamaServer("q4", model).version()
    about = {
        "settings": settings,
        "peer": peer,
        "environment": environment.describe(),
        "model": environment.sha256(model),
    }
    wanted = [name for name in SCENARIOS if name in only.split(",")]
    rounds = [
        (pair, cells, names)
        for cells, most, names in (
            (0, pairs, [name for name in wanted if name != "oversubscribed"]),
            (OVERSUBSCRIBED_CELLS, min(pairs, 3), [name for name in wanted if name == "oversubscribed"]),
        )
        for pair in range(most)
        if names
    ]
    began = datetime.now(UTC).isoformat(timespec="seconds")
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    for pair, cells, names in rounds:
        click.echo(f"pair {pair + 1}: {', '.join(names)} ...", err=True)
        with servers(model, threads, Path(".cache") / "versus-logs", cells=cells) as endpoints:
            if not cells:
                asyncio.run(measure(endpoints, vocabulary, "warm", warm, pair, seed))
            for name in names:
                figures = asyncio.run(measure(endpoints, vocabulary, name, SCENARIOS[name], pair, seed))
                found = results.setdefault(name, {server: [] for server in sorted(endpoints)})
                for server, row in figures.items():
                    found[server].append(row)
                keep(out, name, {**about, "began": began, "found": found})
    click.echo((out / "report.md").read_text())


def keep(out: Path, name: str, record: dict[str, Any]) -> None:
    """Each scenario has a file of its own; the report is made from all that are there."""
    (out / f"{name}.json").write_text(json.dumps(record, indent=1))
    lines = ["# rllm-serve against llama-server", ""]
    records = {
        name: json.loads(path.read_text()) for name in SCENARIOS if (path := out / f"{name}.json").exists()
    }
    lines += [table({name: record["found"] for name, record in records.items()}), ""]
    for name, record in records.items():
        commit = record["environment"].get("git", {}).get("commit", "unknown")
        peer = f"llama-server: {record.get('peer', 'not recorded')}"
        pairs = len(record["found"]["rllm"])
        about = f"begun {record['began']}, {record['settings']}, {pairs} measured, commit {commit[:12]}"
        lines.append(f"- {name}: {about}; {peer}")
    (out / "report.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
