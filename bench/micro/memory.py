"""Does a server's memory grow with the requests it has served? Bytes per request, for each of its processes.

    python -m micro.memory --gguf models/q4.gguf [--first 500] [--last 2000]
    python -m micro.memory --url http://127.0.0.1:8000     # a server of this machine that runs already

Requests of different lengths, streamed and not, eight at a time; some clients leave in the middle. Memory is
what belongs to the processes alone, read while nothing runs, every 250 requests from --first to --last.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import click

from micro.served import Served, served

_WORDS = ("amber", "brook", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "jetty", "knoll")


@click.command()
@click.option("--gguf", type=click.Path(path_type=Path, exists=True), help="Start a server of this model.")
@click.option("--url", help="Measure the server that listens here.")
@click.option("--first", default=500, show_default=True, help="Requests before the first reading.")
@click.option("--last", default=2000, show_default=True, help="Requests before the last one.")
@click.option("--every", default=250, show_default=True)
@click.option("--concurrency", default=8, show_default=True)
@click.option(
    "--limit", default=1024, show_default=True, help="Most bytes per request; above it: exit code 1."
)
def main(
    gguf: Path | None, url: str | None, first: int, last: int, every: int, concurrency: int, limit: int
) -> None:
    with served(gguf, url, "--prefix-store-mb", "0") as server:  # it grows up to its bound
        readings = asyncio.run(_measure(server, list(range(first, last + 1, every)), concurrency))
    counts = [count for count, _ in readings]
    totals = [sum(memory.values()) for _, memory in readings]
    for name in readings[0][1]:
        _report(name, counts, [memory[name] for _, memory in readings])
    slope = _report("all processes", counts, totals)
    raise SystemExit(slope > limit)


async def _measure(server: Served, counts: list[int], concurrency: int) -> list[tuple[int, dict[str, int]]]:
    readings, done, rng = [], 0, random.Random(1)
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(server.url, timeout=timeout) as session:
        for count in counts:
            requests = iter([_body(rng) for _ in range(count - done)])
            await asyncio.gather(*(_client(session, requests, rng) for _ in range(concurrency)))
            await asyncio.sleep(1.0)  # what was cancelled last is over
            done = count
            readings.append((count, server.resident_bytes()))
            click.echo(f"{count:>6} requests: {sum(readings[-1][1].values()) / 2**20:8.1f} MiB", err=True)
    return readings


def _body(rng: random.Random) -> dict[str, object]:
    prompt = " ".join(rng.choices(_WORDS, k=rng.randint(3, 60)))
    return {
        "prompt": prompt,
        "max_tokens": rng.randint(1, 8),
        "stream": rng.random() < 0.5,
        "temperature": rng.choice([0, 1]),
    }


async def _client(
    session: aiohttp.ClientSession, requests: Iterator[dict[str, object]], rng: random.Random
) -> None:
    for body in requests:  # one iterator, shared by all clients
        async with session.post("/v1/completions", json=body) as response:
            if response.status != 200:
                raise click.ClickException(f"{response.status}: {(await response.text())[:200]}")
            if body["stream"] and rng.random() < 0.1:
                continue  # leaving the block closes the connection: a client that went away
            await response.read()


def _report(name: str, counts: list[int], sizes: list[int]) -> float:
    slope = statistics.linear_regression(counts, sizes).slope
    click.echo(
        f"{name:<24} {sizes[0] / 2**20:8.1f} -> {sizes[-1] / 2**20:8.1f} MiB, "
        f"{slope:8.0f} bytes per request over requests {counts[0]} to {counts[-1]}"
    )
    return slope


if __name__ == "__main__":
    main()
