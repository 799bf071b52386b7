"""A few threads for work that would stop the event loop, shared fairly.

Short work never waits for long work: of N threads at most N - 1 do long work, and as long as any waits, one
of them does. Within each kind callers take turns, so who asks for much waits behind himself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Job:
    work: Callable[[], Any]
    result: asyncio.Future[Any]


@dataclass(slots=True)
class _Line:
    """Jobs of one kind, by caller; the caller whose turn it is comes first."""

    callers: dict[str, deque[_Job]] = field(default_factory=dict)
    num_running: int = 0

    def put(self, caller: str, job: _Job) -> None:
        self.callers.setdefault(caller, deque()).append(job)

    def take(self) -> _Job | None:
        """The next one that somebody still waits for; its caller goes to the end."""
        while self.callers:
            caller = next(iter(self.callers))
            jobs = self.callers.pop(caller)
            job = jobs.popleft()
            if jobs:
                self.callers[caller] = jobs
            if not job.result.done():
                return job
        return None


class FairThreads:
    """Lives on the event loop."""

    def __init__(self, threads: int) -> None:
        """``threads``: where there is only one, short work waits for long work after all."""
        self._num_threads = threads
        self._pool = ThreadPoolExecutor(self._num_threads, thread_name_prefix="rllm-text")
        self._short, self._long = _Line(), _Line()

    async def run(self, work: Callable[[], T], *, caller: str, is_long: bool = False) -> T:
        """What ``work`` returns or raises. Who stops waiting before its turn takes it back."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        (self._long if is_long else self._short).put(caller, _Job(work, result))
        self._dispatch(loop)
        return await result

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _dispatch(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._short.num_running + self._long.num_running < self._num_threads:
            line, job = self._next()
            if job is None:
                return
            line.num_running += 1
            self._pool.submit(_do, job.work).add_done_callback(
                lambda done, line=line, job=job: loop.call_soon_threadsafe(  # type: ignore[misc]
                    self._ended, loop, line, job, *done.result()
                )
            )

    def _next(self) -> tuple[_Line, _Job | None]:
        if self._long.num_running == 0 and (job := self._long.take()) is not None:
            return self._long, job
        if (job := self._short.take()) is not None:
            return self._short, job
        if self._long.num_running < self._num_threads - 1:
            return self._long, self._long.take()
        return self._short, None

    def _ended(
        self, loop: asyncio.AbstractEventLoop, line: _Line, job: _Job, value: Any, error: Exception | None
    ) -> None:
        line.num_running -= 1
        if not job.result.done():
            if error is None:
                job.result.set_result(value)
            else:
                job.result.set_exception(error)
        self._dispatch(loop)


def _do(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """On a thread: an answer in every case."""
    try:
        return work(), None
    except Exception as error:
        return None, error
