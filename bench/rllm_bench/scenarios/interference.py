"""A long prompt beside streams: how long do they stand still, and how long does the newcomer wait?"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence

import numpy as np

from rllm_bench.load.client import Ticket
from rllm_bench.load.loops import sleep_until
from rllm_bench.load.prompts import Unit, Words
from rllm_bench.records.cells import RequestRecord, WorkloadSpec
from rllm_bench.scenarios.base import Figures, Scenario, Stage

_STREAM, _NEWCOMER = "stream", "newcomer"
_STREAM_TOKENS, _NEWCOMER_TOKENS = 30, 4
_STREAMS_FROM = 1_000_000
"""Index of the first stream's unit; the newcomers' count from 0."""
_CHUNKS_BETWEEN = 10
"""What every stream has received before the next newcomer is sent."""


def unit(spec: WorkloadSpec, words: Words, index: int) -> Unit:
    """prompt_tokens is the newcomer's prompt, output_tokens the streams' length."""
    is_stream = index >= _STREAMS_FROM
    length = min(_STREAM_TOKENS, spec.prompt_tokens) if is_stream else spec.prompt_tokens
    tokens = spec.output_tokens if is_stream else min(_NEWCOMER_TOKENS, spec.output_tokens)
    drawn = words.draw(words.rng(spec, index), length)
    return [words.prompt(drawn, tokens, _STREAM if is_stream else _NEWCOMER)]


class _Decoding:
    """Counts what each stream receives, and tells when all of them are well under way."""

    def __init__(self, streams: int) -> None:
        self._seen = [0] * streams
        self._changed = asyncio.Event()

    def tick(self, stream: int) -> None:
        self._seen[stream] += 1
        self._changed.set()

    async def under_way(self) -> None:
        target = [seen + _CHUNKS_BETWEEN for seen in self._seen]
        while any(seen < wanted for seen, wanted in zip(self._seen, target, strict=True)):
            self._changed.clear()
            await self._changed.wait()


async def play(stage: Stage) -> None:
    """The load's users stream without end; newcomers come one after the other while all of them decode."""
    decoding, over = _Decoding(stage.users), asyncio.Event()
    numbers = itertools.count(_STREAMS_FROM + stage.process, stage.num_processes)
    timeout_s = stage.spec.timeout_s

    async def stream(user: int) -> None:
        await sleep_until(due := stage.start)
        while not over.is_set():
            index = next(numbers)
            (prompt,) = stage.workload.unit(index)
            record = await stage.client.send(
                prompt, Ticket(index, 0, due), timeout_s, lambda: decoding.tick(user)
            )
            stage.sink(record)
            due = time.monotonic()
            if not record.ok:
                over.set()

    async def newcomers() -> None:
        for index in stage.own:
            await decoding.under_way()
            (prompt,) = stage.workload.unit(index)
            now = time.monotonic()
            stage.sink(await stage.client.send(prompt, Ticket(index, 0, now), timeout_s))
        over.set()

    async with asyncio.TaskGroup() as group:
        arriving = group.create_task(newcomers())
        streams = [group.create_task(stream(user)) for user in range(stage.users)]
        await asyncio.wait(streams)
        arriving.cancel()  # only where a stream has failed is it still waiting


def figures(requests: Sequence[RequestRecord]) -> Figures:
    """Of the streams, the gaps that overlap with a newcomer's wait for its first token."""
    newcomers = [r for r in requests if r.role == _NEWCOMER and r.first_us is not None]
    windows = [(r.sent_us, r.first_us or 0) for r in newcomers]
    gaps = [
        gap / 1e3
        for r in requests
        if r.role == _STREAM and r.first_us is not None
        for end, gap in zip(np.cumsum([r.first_us, *r.gaps_us])[1:].tolist(), r.gaps_us, strict=True)
        if any(end > sent and end - gap < first for sent, first in windows)
    ]
    if not gaps:
        return {}
    waits = [(first - sent) / 1e3 for sent, first in windows]
    return {
        "beside_itl_p50_ms": float(np.percentile(gaps, 50)),
        "beside_itl_p99_ms": float(np.percentile(gaps, 99)),
        "newcomer_ttft_p50_ms": float(np.median(waits)),
    }


SCENARIOS = (
    Scenario(
        name="interference",
        question="streams that decode while a long prompt arrives",
        unit=unit,
        play=play,
        figures=figures,
        usual={
            "concurrency": [6],
            "prompt_tokens": [1500],
            "output_tokens": [400],
            "requests_per_user": 1,
            "min_requests": 2,
        },
        headline=("beside_itl_p99_ms", "beside_itl_p50_ms", "newcomer_ttft_p50_ms"),
    ),
)
