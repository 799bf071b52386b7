"""The load generator as processes of their own: progress bars and telemetry cannot delay a request.

Protocol over the child's pipes, one JSON value a line: the parent sends a Job; the child warms up and
prints ``{"ready": …}``; the parent sends the start (monotonic seconds, one clock for the whole machine);
the child prints ``{"done": n}`` as it goes and a GeneratorRecord at the end. Requests go to its file.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
import msgspec

from rllm_bench import scenarios
from rllm_bench.load.client import Client, Endpoint
from rllm_bench.load.loops import LagMeter, closed_loop
from rllm_bench.records.cells import CellSpec, GeneratorRecord, RequestRecord
from rllm_bench.records.vocabulary import Vocabulary
from rllm_bench.scenarios.base import Stage, Workload, share

WARMUP_SEED_OFFSET = 7_919
"""Warm-up prompts are of the same shape and never those that are measured."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    spec: CellSpec
    endpoint: Endpoint
    vocabulary_path: str
    requests_path: str
    process: int = 0
    num_processes: int = 1


def main() -> None:
    raised = _raise_priority()
    job = msgspec.json.decode(sys.stdin.readline(), type=Job)
    gc.disable()  # a few hundred MB at most, and no pause falls into a latency
    vocabulary = msgspec.json.decode(Path(job.vocabulary_path).read_bytes(), type=Vocabulary)
    with Path(job.requests_path).open("wb") as out:
        record = _drive(_run(job, vocabulary, out, raised))
    _say(msgspec.json.encode(record))


def _drive(work: Coroutine[Any, Any, GeneratorRecord]) -> GeneratorRecord:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


def _raise_priority() -> bool:
    """A generator that waits for a processor measures itself. Needs privileges; the record says if it had."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
        return True
    return False


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


async def _run(job: Job, vocabulary: Vocabulary, out: BinaryIO, raised: bool) -> GeneratorRecord:
    # A connection for each request: some servers close idle ones without a word, and a failure that is
    # the pool's would look like theirs. A local connect costs about 0.1 ms, inside every latency alike.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, trust_env=False) as session:
        warmup_errors = await _warm_up(session, job, vocabulary)
        work = scenarios.workload(job.spec.workload, vocabulary)
        work.draw(range(job.process, job.spec.num_requests, job.num_processes))
        _say(msgspec.json.encode({"ready": warmup_errors}))
        start = float(await asyncio.to_thread(sys.stdin.readline))
        return await _measure(session, job, work, out, start, raised, warmup_errors)


async def _warm_up(session: aiohttp.ClientSession, job: Job, vocabulary: Vocabulary) -> int:
    """What a scenario asks beforehand, then requests of the same shape that are never measured."""
    count = share(job.spec.num_warmups, job.process, job.num_processes)
    seed = job.spec.workload.seed + WARMUP_SEED_OFFSET
    other = scenarios.workload(msgspec.structs.replace(job.spec.workload, seed=seed), vocabulary)
    now = time.monotonic()
    errors: list[RequestRecord] = []
    client = Client(session, job.endpoint, now, job.process)

    def sink(record: RequestRecord) -> None:
        if not record.ok:
            errors.append(record)

    first = scenarios.workload(job.spec.workload, vocabulary).before() if job.process == 0 else []
    warming = [other.unit(job.process + index * job.num_processes) for index in range(count)]
    for units, users in ((first, 1), (warming, _users(job))):
        await closed_loop(
            client,
            sink,
            enumerate(units),
            users=min(users, len(units)),
            start=now,
            timeout_s=job.spec.timeout_s,
        )
    return len(errors)


def _users(job: Job) -> int:
    """Open loop: warm up with as many users as may be in flight, but no crowd."""
    return share(job.spec.load.concurrency or 8, job.process, job.num_processes)


async def _measure(
    session: aiohttp.ClientSession,
    job: Job,
    work: Workload,
    out: BinaryIO,
    start: float,
    raised: bool,
    warmup_errors: int,
) -> GeneratorRecord:
    client = Client(session, job.endpoint, start, job.process)
    cpu_before, wall_before = time.process_time(), time.monotonic()
    progress = _Progress()

    def sink(record: RequestRecord) -> None:
        out.write(msgspec.json.encode(record) + b"\n")
        progress.count()

    async with LagMeter() as lag:
        stage = Stage(client, sink, job.spec, work, start, job.process, job.num_processes)
        await work.scenario.play(stage)
    return GeneratorRecord(
        process=job.process,
        wall_s=round(time.monotonic() - wall_before, 4),
        cpu_s=round(time.process_time() - cpu_before, 4),
        loop_lag_p50_ms=round(lag.percentile_ms(50), 3),
        loop_lag_p99_ms=round(lag.percentile_ms(99), 3),
        loop_lag_max_ms=round(lag.percentile_ms(100), 3),
        chunks=client.chunks,
        priority_raised=raised,
        warmup_errors=warmup_errors,
    )


class _Progress:
    """Tells the parent how many requests are complete, a few times a second at most."""

    def __init__(self) -> None:
        self._done = 0
        self._next = 0.0

    def count(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 0.3
            _say(b'{"done":%d}' % self._done)


if __name__ == "__main__":
    main()
