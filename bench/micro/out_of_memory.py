"""A card that has hardly any memory left: does the server go on with fewer slots?

    python -m micro.out_of_memory --gguf models/q4.gguf [--leave-mib 100] [--slots 64] [--users 64]

The server starts on an empty card. Then this process takes what is free, but for --leave-mib, and users
ask: the buffers of the first large steps find no room. Then it gives the memory back, and they ask again.

Exit status 0: the server lived, every request was answered in full or with a typed error, and the last
wave in full.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import psutil

from micro.asking import at_once, session, unique
from rllm_bench.records.cells import RequestRecord, Settings
from rllm_bench.records.vocabulary import Vocabulary, from_gguf
from rllm_bench.run import prometheus
from rllm_bench.targets.rllm import Rllm
from rllm_bench.targets.server import Server, running

_MIB = 2**20
_STEP = 64 * _MIB
_TOKENS = 64
_METRICS = ("rllm_out_of_memory_total", "rllm_slots", "rllm_worker_restarts_total", "rllm_worker_up")


class Card:
    """The memory of the first visible card."""

    def __init__(self) -> None:
        self._cuda = ctypes.CDLL(_library())
        self._blocks: list[ctypes.c_void_p] = []

    def free(self) -> int:
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        if status := self._cuda.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)):
            raise click.ClickException(f"cudaMemGetInfo: {status}")
        return free.value

    def take_all_but(self, left: int) -> None:
        for size in (64 * _STEP, _STEP, 4 * _MIB):
            while self.free() >= left + size and self._take(size):
                pass

    def _take(self, size: int) -> bool:
        block = ctypes.c_void_p()
        if self._cuda.cudaMalloc(ctypes.byref(block), ctypes.c_size_t(size)):
            return False
        self._blocks.append(block)
        return True

    def give_back(self) -> None:
        while self._blocks:
            self._cuda.cudaFree(self._blocks.pop())


def _library() -> str:
    folder = Path("/usr/local/cuda/lib64")
    return str(next(iter(sorted(folder.glob("libcudart.so*"))), "libcudart.so"))


async def wave(
    server: Server, words: Vocabulary, users: int, prompt_tokens: int, seed: int
) -> list[RequestRecord]:
    """All users ask at once, each for something of its own."""
    async with session() as http:
        prompts = unique(words, users, prompt_tokens, _TOKENS, seed)
        return await at_once(http, server.launch.endpoint, prompts)


def outcomes(answers: list[RequestRecord]) -> Counter[str]:
    return Counter(
        answer.error or ("whole" if answer.completion_tokens == _TOKENS else "CUT SHORT")
        for answer in answers
    )


def is_typed(outcome: str) -> bool:
    return outcome in {"whole", "stream", "http_429", "http_503"}


def report(server: Server, title: str, card: Card, counts: Counter[str] | None = None) -> None:
    click.echo(f"{title}: {card.free() / _MIB:.0f} MiB free")
    for outcome, count in (counts or Counter()).most_common():
        click.echo(f"  {count} x {outcome}")
    with contextlib.suppress(OSError):
        found = prometheus.scrape(server.launch.endpoint.base_url)
        for name, value in sorted(found.items()):
            if name.startswith(_METRICS):
                click.echo(f"  {name} {value:g}")


@contextlib.contextmanager
def taken(card: Card, left: int) -> Iterator[None]:
    card.take_all_but(left)
    try:
        yield
    finally:
        card.give_back()


@click.command()
@click.option("--gguf", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--leave-mib", default=100, show_default=True)
@click.option("--slots", default=64, show_default=True)
@click.option("--ctx-size", default=1024, show_default=True)
@click.option("--users", default=64, show_default=True)
@click.option("--prompt-tokens", default=400, show_default=True)
@click.option("--waves", default=3, show_default=True, help="While memory is short.")
def main(
    gguf: Path, leave_mib: int, slots: int, ctx_size: int, users: int, prompt_tokens: int, waves: int
) -> None:
    words, card, seen = from_gguf(gguf), Card(), Counter[str]()
    log = Path(tempfile.mkdtemp()) / "server.log"
    settings = Settings(slots=slots, ctx_per_slot=ctx_size)
    with running(Rllm("model", gguf), settings, log, words.end_tokens) as server:
        report(server, "started", card)
        with taken(card, leave_mib * _MIB):
            report(server, "memory taken", card)
            for number in range(waves):
                counts = outcomes(asyncio.run(wave(server, words, users, prompt_tokens, number)))
                report(server, f"wave {number + 1} while memory is short", card, counts)
                seen += counts
        last = outcomes(asyncio.run(wave(server, words, users, prompt_tokens, waves)))
        report(server, "after it was given back", card, last)
        lives = server.pid is not None and psutil.pid_exists(server.pid)
    for line in log.read_text(errors="replace").splitlines():
        if "out of memory" in line.lower() or "fewer" in line:
            click.echo(f"  log: {line[:240]}")
    good = lives and all(map(is_typed, seen)) and set(last) == {"whole"}
    click.echo("kept: it lives, and nothing was lost without a word" if good else "NOT KEPT")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
