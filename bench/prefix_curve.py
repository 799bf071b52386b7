"""What the prefix cache is worth: time to first token against the length of a shared beginning.

    python bench/prefix_curve.py [--model models/q4.gguf] [--requests 24] [--out reports/prefix-curve]

Two servers are up, one with the prefix cache and one without, and take turns request by request, one request
at a time. In a cell of the grid, a share of the prompts begins with the cell's own prefix, which was asked
for once before; the others begin with as many words of their own. Every prompt ends with words of its own. A
word is one token. Hits are taken from the server's ``usage``, and a cell where they are not what was meant
is reported.

Raw records are appended to records.jsonl as they come. A run that was stopped goes on after the last
complete cell; with other settings it begins anew. About 7 minutes on two cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import click
import matplotlib
import msgspec
import numpy as np
from tabulate import tabulate

from rllm_bench.records import environment
from rllm_bench.records.runs import Settings
from rllm_bench.records.vocabulary import Vocabulary, from_gguf
from rllm_bench.targets.rllm import Rllm
from rllm_bench.targets.server import running
from versus_llama_server import Answer, Asker, must_succeed

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LENGTHS = (0, 64, 256, 600, 1500)
SHARES = (0, 50, 100)
OWN_WORDS, MAX_TOKENS = 30, 2
SLOTS, CTX = 8, 2048


class Record(msgspec.Struct, frozen=True):
    """One request. ``cached`` are the prompt tokens that the server says it did not compute."""

    cache: bool
    length: int
    share: int
    number: int
    hit: bool
    ttft_s: float
    prompt: int
    cached: int


@dataclass(frozen=True)
class Cell:
    length: int
    share: int

    def rng(self, seed: int) -> random.Random:
        return random.Random(f"{seed}-{self.length}-{self.share}")


def cells(seed: int) -> list[Cell]:
    """In random order, so that a machine that slows down does not bend the curve. Without a prefix
    nobody can hit."""
    grid = [Cell(length, share) for length in LENGTHS for share in SHARES if length or not share]
    random.Random(seed).shuffle(grid)
    return grid


class Run:
    """The records of one folder."""

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._settings = out / "settings.json"
        self._path = out / "records.jsonl"
        same = self._settings.exists() and msgspec.json.decode(self._settings.read_bytes()) == settings
        if not same:
            self._path.unlink(missing_ok=True)
            self._settings.write_bytes(msgspec.json.format(msgspec.json.encode(settings)))
        self.records = list(self._read())

    def _read(self) -> Iterator[Record]:
        if self._path.exists():
            for line in self._path.read_bytes().splitlines():
                with contextlib.suppress(msgspec.DecodeError):  # the last line of a run that was killed
                    yield msgspec.json.decode(line, type=Record)

    def has(self, cell: Cell, requests: int) -> bool:
        found = [r for r in self.records if (r.length, r.share) == (cell.length, cell.share)]
        return len(found) == 2 * requests

    def add(self, cell: Cell, records: Sequence[Record]) -> None:
        """All of a cell at once; what an interrupted run left of it is not there, as it was never written."""
        with self._path.open("ab") as file:
            file.writelines(msgspec.json.encode(record) + b"\n" for record in records)
        self.records += records


async def measure(cell: Cell, askers: dict[bool, Asker], requests: int, seed: int) -> list[Record]:
    rng = cell.rng(seed)
    prefix = askers[True].words(cell.length, rng)
    hits = [number * 100 < requests * cell.share for number in range(requests)]
    rng.shuffle(hits)
    for asker in askers.values():
        must_succeed([await asker.ask(prefix + asker.words(OWN_WORDS, rng), MAX_TOKENS)])
    records = []
    for number, hit in enumerate(hits):
        order = [True, False]
        rng.shuffle(order)
        for cache in order:
            asker = askers[cache]
            beginning = prefix if hit else asker.words(cell.length, rng)
            answer = await asker.ask(beginning + asker.words(OWN_WORDS, rng), MAX_TOKENS)
            must_succeed([answer])
            records.append(_record(cell, cache, number, hit, answer))
    return records


def _record(cell: Cell, cache: bool, number: int, hit: bool, answer: Answer) -> Record:
    return Record(
        cache, cell.length, cell.share, number, hit, answer.ttft, answer.prompt_tokens, answer.cached_tokens
    )


@contextlib.contextmanager
def servers(model: Path, threads: int, logs: Path) -> Iterator[dict[bool, Any]]:
    with contextlib.ExitStack() as stack:
        up = {}
        for cache in (True, False):
            settings = Settings(slots=SLOTS, ctx_per_slot=CTX, threads=threads, prefix_cache=cache)
            log = logs / f"rllm-{'cache' if cache else 'no-cache'}.log"
            server = stack.enter_context(running(Rllm("q4", model), settings, log, ()))
            up[cache] = server.launch.endpoint
        yield up


async def measure_all(
    run: Run, endpoints: dict[bool, Any], vocabulary: Vocabulary, requests: int, seed: int
) -> None:
    timeout = aiohttp.ClientTimeout(total=600)
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
        askers = {cache: Asker(session, endpoint, vocabulary) for cache, endpoint in endpoints.items()}
        for asker in askers.values():
            must_succeed([await asker.ask(asker.words(300, random.Random(seed)), 8)])  # pages are in memory
        for cell in cells(seed):
            if run.has(cell, requests):
                continue
            records = await measure(cell, askers, requests, seed)
            run.add(cell, records)
            click.echo(f"{cell.length:>5} tokens, {cell.share:>3} % hit: {_line(records)}", err=True)


def _line(records: Sequence[Record]) -> str:
    on, off = ([1e3 * r.ttft_s for r in records if r.cache is cache] for cache in (True, False))
    return f"TTFT p50 {np.median(on):.0f} ms with the cache, {np.median(off):.0f} ms without"


# --- what it means ------------------------------------------------------------------------------------


def times(records: Sequence[Record], length: int, share: int, cache: bool) -> list[float]:
    """In milliseconds."""
    share = share if length else 0
    return [1e3 * r.ttft_s for r in records if (r.length, r.share, r.cache) == (length, share, cache)]


def table(records: Sequence[Record]) -> str:
    rows = []
    for length in LENGTHS:
        for share in SHARES if length else (0,):
            on, off = (times(records, length, share, cache) for cache in (True, False))
            if on and off:
                figures = [f(own) for own in (on, off) for f in (np.median, _p95)]
                ratio = figures[0] / figures[2]
                rows.append([length, f"{share} %", len(on), *(f"{x:.0f}" for x in figures), f"{ratio:.2f}"])
    head = [
        "shared tokens", "prompts that hit", "requests", "p50 ms, cache", "p95 ms, cache", "p50 ms, none",
        "p95 ms, none", "p50, cache : none",
    ]  # fmt: skip
    return tabulate(rows, head, tablefmt="github", disable_numparse=True)


def _p95(values: Sequence[float]) -> float:
    return float(np.percentile(values, 95))


def doubts(records: Sequence[Record]) -> Iterator[str]:
    """Requests that did not hit, or did, against what was meant."""
    for cell in cells(0):
        own = [r for r in records if (r.length, r.share) == (cell.length, cell.share)]
        missed = sum(r.cache and r.hit and r.cached < r.length for r in own)
        surprising = sum(r.cached >= max(1, r.length) for r in own if not (r.cache and r.hit))
        if missed:
            yield f"{cell.length} tokens, {cell.share} %: {missed} requests found less than the whole prefix"
        if surprising:
            yield f"{cell.length} tokens, {cell.share} %: {surprising} requests hit that were not meant to"


def plot(records: Sequence[Record], path: Path) -> None:
    style: dict[str, Any] = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True}
    with plt.rc_context({**style, "grid.alpha": 0.25, "svg.hashsalt": "rllm", "svg.fonttype": "none"}):
        figure, panels = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
        for axes, (title, figure_of) in zip(panels, (("p50", np.median), ("p95", _p95)), strict=True):
            for share, colour in zip(SHARES, ("#9aa0a6", "#6fb3ee", "#0b4f9e"), strict=True):
                for cache in (True, False):
                    line = [(n, t) for n in LENGTHS if (t := times(records, n, share, cache))]
                    axes.plot(
                        [length for length, _ in line],
                        [figure_of(values) for _, values in line],
                        "o-" if cache else "x--",
                        color=colour if cache else "#f28e2b",
                        alpha=1 if cache else 0.4 + share / 200,
                        label=f"{'cache' if cache else 'no cache'}, {share} % hit",
                    )
            axes.set_title(f"Time to first token, {title} (ms)", loc="left")
            axes.set_xlabel(f"tokens in common (each prompt has {OWN_WORDS} of its own)")
            axes.set_xticks(LENGTHS)
            axes.set_ylim(bottom=0)
        panels[0].legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def write_report(run: Run, out: Path, settings: dict[str, Any]) -> str:
    plot(run.records, out / "curve.svg")
    found = list(doubts(run.records)) or ["Every request hit, or did not, as it was meant to."]
    lines = [
        "# What the prefix cache is worth",
        "",
        f"{settings['model_name']}, {SLOTS} slots of {CTX} tokens, {settings['threads']} threads, "
        f"{settings['requests']} requests per cell and server, one at a time; time to first token.",
        "",
        "![curve](curve.svg)",
        "",
        table(run.records),
        "",
        *(f"- {line}" for line in found),
        "",
        "Made by `python bench/prefix_curve.py`. records.jsonl has every request, settings.json the machine.",
        "",
    ]
    text = "\n".join(lines)
    (out / "report.md").write_text(text)
    return text


@click.command(help=__doc__)
@click.option("--model", type=click.Path(path_type=Path, exists=True), default=Path("models/q4.gguf"))
@click.option("--requests", default=24, show_default=True, help="Requests per cell and server.")
@click.option("--threads", default=2, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("reports/prefix-curve"))
def main(model: Path, requests: int, threads: int, seed: int, out: Path) -> None:
    machine = environment.describe()
    machine.pop("load_average")
    settings = {
        "model_name": model.name,
        "model_sha256": environment.sha256(model),
        "requests": requests,
        "threads": threads,
        "seed": seed,
        "environment": machine,
    }
    run = Run(out, settings)
    if not all(run.has(cell, requests) for cell in cells(seed)):
        with servers(model, threads, Path(".cache") / "prefix-curve-logs") as endpoints:
            asyncio.run(measure_all(run, endpoints, from_gguf(model), requests, seed))
    click.echo(write_report(run, out, settings))


if __name__ == "__main__":
    main()
