"""Who waits for whom: decided without a clock, by jobs that wait until they are told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rllm.api.http.fair_threads import FairThreads


class Job:
    """Runs until `let_go`."""

    def __init__(
        self, threads: FairThreads, order: list[str], name: str, caller: str, *, is_long: bool
    ) -> None:
        self._go = threading.Event()
        self._order = order
        self._name = name
        self.started = threading.Event()
        self.task = asyncio.ensure_future(threads.run(self._run, caller=caller, is_long=is_long))

    def _run(self) -> str:
        self._order.append(self._name)
        self.started.set()
        assert self._go.wait(20)
        return self._name

    async def let_go(self) -> None:
        self._go.set()
        assert await self.task == self._name


@pytest_asyncio.fixture
async def threads() -> AsyncIterator[FairThreads]:
    threads = FairThreads(2)
    yield threads
    threads.close()


async def start(job: Job) -> Job:
    assert await asyncio.to_thread(job.started.wait, 20)
    return job


async def test_short_work_does_not_wait_for_long_work(threads: FairThreads) -> None:
    order: list[str] = []
    long = [Job(threads, order, f"long {i}", f"caller {i}", is_long=True) for i in range(3)]
    await start(long[0])
    short = await start(Job(threads, order, "short", "somebody", is_long=False))
    assert order == ["long 0", "short"]
    for job in (short, *long):
        await job.let_go()
    assert order == ["long 0", "short", "long 1", "long 2"]


async def test_long_work_is_done_under_a_flood_of_short_work(threads: FairThreads) -> None:
    order: list[str] = []
    short = [Job(threads, order, f"short {i}", "flood", is_long=False) for i in range(6)]
    await start(short[1])
    long = Job(threads, order, "long", "somebody", is_long=True)
    await asyncio.sleep(0)
    await short[0].let_go()
    await start(long)
    assert order == ["short 0", "short 1", "long"]
    for job in (*short[1:], long):
        await job.let_go()


@pytest.mark.parametrize("is_long", [False, True])
async def test_callers_take_turns(threads: FairThreads, is_long: bool) -> None:
    order: list[str] = []
    busy = [Job(threads, order, f"busy {i}", "x", is_long=i == 0) for i in range(2)]
    for job in busy:
        await start(job)
    greedy = [Job(threads, order, f"greedy {i}", "greedy", is_long=is_long) for i in range(3)]
    modest = Job(threads, order, "modest", "modest", is_long=is_long)
    await asyncio.sleep(0)
    await busy[0 if is_long else 1].let_go()
    for job in (*greedy, modest):
        job._go.set()
    await asyncio.gather(*(job.task for job in (*greedy, modest)))
    assert order[2:] == ["greedy 0", "modest", "greedy 1", "greedy 2"]
    await busy[1 if is_long else 0].let_go()


async def test_who_stops_waiting_takes_his_work_back(threads: FairThreads) -> None:
    order: list[str] = []
    busy = [await start(Job(threads, order, f"busy {i}", "x", is_long=False)) for i in range(2)]
    left = Job(threads, order, "left", "x", is_long=False)
    await asyncio.sleep(0)
    left.task.cancel()
    for job in busy:
        await job.let_go()
    last = await start(Job(threads, order, "last", "x", is_long=False))
    await last.let_go()
    assert "left" not in order


async def test_a_fault_of_the_work_is_its_callers(threads: FairThreads) -> None:
    def fail() -> None:
        raise ValueError("because")

    with pytest.raises(ValueError, match="because"):
        await threads.run(fail, caller="x")
    assert await threads.run(lambda: 1, caller="x") == 1
