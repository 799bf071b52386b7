"""How many tokens a second pass through everything above the model: scheduler, IPC, API process, HTTP, SSE.

    python -m micro.http_ceiling [--streams 64] [--seconds 8] [--clients 2] [--rates 5000,20000]

A real server with a fake backend that costs next to nothing, asked by client processes that only count. First
without any pace, which is the limit; then at the given rates, where the share of a core that the API process
takes and the gaps between tokens say whether it keeps up. On a machine of few cores clients and server share
them, and the limit is that of all together; the processors' times say whose.

A token is one letter here, so the letters of a chunk are its tokens. Gaps are compared with those that the
server itself measured (rllm_inter_token_latency_seconds).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import re
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import cast

import click
import psutil

_TEXT = re.compile(rb'"text":"([a-z ]*)"')
_END = b"data: [DONE]"
_OUTPUT_TOKENS = 400


@dataclass(frozen=True)
class Seen:
    """What one client process saw within its window."""

    chunk_tokens: list[int]
    gaps_s: list[float]
    cpu_s: float
    failed: int


class _Stream(asyncio.Protocol):
    """One request after another, each on a connection of its own; counts what arrives in the window."""

    def __init__(self, request: bytes, window: tuple[float, float]) -> None:
        self._request = request
        self._window = window
        self._last: float | None = None
        self._rest = b""
        self.tokens: list[int] = []
        self.gaps: list[float] = []
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        events, _, self._rest = (self._rest + data).rpartition(b"\n\n")
        lengths = [len(text) for text in _TEXT.findall(events) if text]
        if lengths and self._window[0] <= now < self._window[1]:
            self.tokens += lengths
            if self._last is not None:
                self.gaps += [(now - self._last) / sum(lengths)] * sum(lengths)
        if lengths:
            self._last = now
        if _END in events:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(bool(self.tokens) or self._last is not None)


def _client(port: int, streams: int, begin: float, seconds: float) -> Seen:
    return asyncio.run(_drive(port, streams, (begin, begin + seconds)))


async def _drive(port: int, streams: int, window: tuple[float, float]) -> Seen:
    body = json.dumps({"prompt": "x" * 32, "max_tokens": _OUTPUT_TOKENS, "stream": True}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    loop, seen, failed = asyncio.get_running_loop(), [], 0
    began = time.process_time()

    async def user() -> None:
        nonlocal failed
        while time.monotonic() < window[1]:
            _, stream = await loop.create_connection(
                lambda: _Stream(head.encode() + body, window), "127.0.0.1", port
            )
            failed += not await stream.done
            seen.append(stream)

    await asyncio.gather(*(user() for _ in range(streams)))
    return Seen(
        list(itertools.chain.from_iterable(stream.tokens for stream in seen)),
        list(itertools.chain.from_iterable(stream.gaps for stream in seen)),
        time.process_time() - began,
        failed,
    )


@contextmanager
def _server(streams: int, step_s: float) -> Iterator[tuple[int, psutil.Process]]:
    command = [sys.executable, __file__, "--serve", str(step_s), "--streams", str(streams)]
    with Popen(command, stdout=PIPE, stderr=DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            port = next(int(line.split()[1]) for line in process.stdout if line.startswith("port "))
            for line in process.stdout:
                if "is ready" in line:
                    break
            yield port, psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGINT)


def _serve(streams: int, step_s: float) -> None:
    from rllm.backends.fake import FakeVocabulary
    from rllm.backends.options import FakeOptions
    from rllm.main import serve_plans  # here: a client needs none of it
    from rllm.observe.gpu import Gpus
    from rllm.observe.logs import make_logger
    from rllm.serving.catalog import ModelPlan
    from rllm.settings.load import load
    from rllm.startup.listening import listening
    from rllm.workers.frames import WorkerSpec

    settings = load({"gguf": (Path("fake.gguf"),), "port": 0})
    options = FakeOptions(
        slots=streams, ctx_per_slot=1024, batch_size=4096, kv_unified=False, step_s=step_s, babbles=True
    )
    plan = ModelPlan("fake", (), FakeVocabulary, (WorkerSpec(name="fake-0", fake=options),))
    with listening(settings.listening_hosts, 0) as listeners:
        print("port", listeners[0].getsockname()[1], flush=True)
        serve_plans(settings, [plan], listeners, make_logger("json", "error"), Gpus())
        sys.stdout.flush()


def _scrape(port: int) -> dict[str, float]:
    from rllm_bench.run.prometheus import scrape

    return scrape(f"http://127.0.0.1:{port}", 5.0)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(streams: int, clients: int, seconds: float, rate: float | None) -> None:
    """One line of figures. ``rate``: tokens a second that the fake backend offers; None: all it can."""
    with _server(streams, streams / rate if rate else 0.0) as (port, api):
        worker = next(child for child in api.children() if "rllm.workers" in child.cmdline())
        with ProcessPoolExecutor(clients, multiprocessing.get_context("spawn")) as pool:
            list(pool.map(time.sleep, [0.3] * clients))  # they have started
            begin = time.monotonic() + 1.0
            share = [streams // clients + (number < streams % clients) for number in range(clients)]
            running = [pool.submit(_client, port, number, begin, seconds) for number in share]
            time.sleep(max(0.0, begin - time.monotonic()))
            before = (_cpu_s(api), _cpu_s(worker), _scrape(port))
            time.sleep(max(0.0, begin + seconds - time.monotonic()))
            after = (_cpu_s(api), _cpu_s(worker), _scrape(port))
            seen = [each.result() for each in running]
    _report(rate, seconds, seen, before, after)


_State = tuple[float, float, dict[str, float]]


def _report(rate: float | None, seconds: float, seen: list[Seen], before: _State, after: _State) -> None:
    import numpy as np  # here: a server loads llama.cpp, and that first

    tokens = np.concatenate([np.asarray(each.chunk_tokens) for each in seen])
    gaps = np.concatenate([np.asarray(each.gaps_s) for each in seen]) * 1e3
    name = "rllm_inter_token_latency_seconds"
    count = after[2][f"{name}_count"] - before[2][f"{name}_count"]
    server_ms = 1e3 * (after[2][f"{name}_sum"] - before[2][f"{name}_sum"]) / max(count, 1)
    p50, p99 = np.percentile(gaps, [50, 99])
    failed = sum(each.failed for each in seen)
    api, worker = (after[0] - before[0]) / seconds, (after[1] - before[1]) / seconds
    clients = sum(each.cpu_s for each in seen) / seconds
    pace = "no pace" if rate is None else f"{rate:,.0f} offered"
    parts = (
        f"{pace:>15}: {tokens.sum() / seconds:7,.0f} tokens/s",
        f"tokens per chunk mean {tokens.mean():.2f} p99 {np.percentile(tokens, 99):.0f}",
        f"ITL client mean {gaps.mean():.2f} p50 {p50:.2f} p99 {p99:.2f} ms, server mean {server_ms:.2f} ms "
        f"({gaps.mean() / server_ms - 1:+.1%})",
        f"cores: API {api:.2f} ({tokens.sum() / seconds / max(api, 0.01):,.0f} tokens a second of it), "
        f"worker {worker:.2f}, clients {clients:.2f}",
        *([f"{failed} FAILED"] if failed else []),
    )
    click.echo(", ".join(parts))


@click.command()
@click.option("--streams", default=64, show_default=True)
@click.option("--clients", default=2, show_default=True, help="Client processes.")
@click.option("--seconds", default=8.0, show_default=True)
@click.option("--rates", default="5000,20000", show_default=True, help="Tokens a second, with commas.")
@click.option("--serve", type=float, hidden=True)
def main(streams: int, clients: int, seconds: float, rates: str, serve: float | None) -> None:
    if serve is not None:
        _serve(streams, serve)
        return
    click.echo(f"{psutil.cpu_count()} cores, {streams} streams, {clients} client processes")
    measure(streams, clients, seconds, None)
    for rate in (float(rate) for rate in rates.split(",") if rate):
        measure(streams, clients, seconds, rate)


if __name__ == "__main__":
    main()
