"""Closed and open loop over one client, inside one load generator process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from rllm_bench.load.client import Ticket
from rllm_bench.load.prompts import Prompt, Unit
from rllm_bench.records.cells import RequestRecord

_PAUSE_AFTER_ERROR_S = 0.1
"""A server that refuses at once must not be asked as fast as we can."""

Sink = Callable[[RequestRecord], None]


class Sender(Protocol):
    async def send(
        self, prompt: Prompt, ticket: Ticket, timeout_s: float, on_content: Callable[[], None] | None = None
    ) -> RequestRecord: ...


async def sleep_until(moment: float) -> None:
    """Returns at or after ``moment`` of the monotonic clock, never before it."""
    while (left := moment - time.monotonic()) > 0:  # noqa: ASYNC110  # time is what is waited for
        await asyncio.sleep(left)


async def _run_unit(
    sender: Sender, sink: Sink, unit: Unit, index: int, due: float, *, timeout_s: float
) -> float:
    """The turns of one unit, each due when the one before it is complete. Returns when the next would be."""
    for turn, prompt in enumerate(unit):
        record = await sender.send(prompt, Ticket(index, turn, due), timeout_s)
        sink(record)
        if not record.ok:
            await asyncio.sleep(_PAUSE_AFTER_ERROR_S)
        due = time.monotonic()
    return due


async def closed_loop(
    sender: Sender,
    sink: Sink,
    units: Iterator[tuple[int, Unit]],
    *,
    users: int,
    start: float,
    timeout_s: float,
) -> None:
    """``users`` take units from one iterator; each asks again at once when its answer is complete."""

    async def user() -> None:
        await sleep_until(start)
        due = start
        for index, unit in units:
            due = await _run_unit(sender, sink, unit, index, due, timeout_s=timeout_s)

    await asyncio.gather(*(user() for _ in range(users)))


async def open_loop(
    sender: Sender,
    sink: Sink,
    arrivals: Sequence[tuple[float, int, Unit]],
    *,
    start: float,
    limit: int | None,
    timeout_s: float,
) -> None:
    """Each unit is sent when it is due, whatever became of those before. With ``limit``, units wait here
    for a place; the wait is part of their latency, because that counts from when they were due."""
    gate = asyncio.Semaphore(limit) if limit else None

    async def one(due: float, index: int, unit: Unit) -> None:
        if gate is None:
            await _run_unit(sender, sink, unit, index, due, timeout_s=timeout_s)
            return
        async with gate:
            await _run_unit(sender, sink, unit, index, due, timeout_s=timeout_s)

    async with asyncio.TaskGroup() as group:
        for offset, index, unit in arrivals:
            due = start + offset
            await sleep_until(due)
            group.create_task(one(due, index, unit))


class LagMeter:
    """How late this process's event loop wakes: the error that every timestamp may carry."""

    def __init__(self, interval_s: float = 0.01) -> None:
        self._interval_s = interval_s
        self._lags: list[float] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> LagMeter:
        self._task = asyncio.create_task(self._measure())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _measure(self) -> None:
        while True:
            due = time.monotonic() + self._interval_s
            await asyncio.sleep(self._interval_s)
            self._lags.append(max(0.0, time.monotonic() - due))

    def percentile_ms(self, q: float) -> float:
        return float(np.percentile(self._lags, q)) * 1e3 if self._lags else 0.0
