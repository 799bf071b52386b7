"""A pool over real worker processes with the fake backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest_asyncio

from rllm.backends.fake import FakeVocabulary
from rllm.backends.options import FakeOptions, Fallback
from rllm.engine.types import EngineRequest, SamplingParams
from rllm.serving.breaker import BreakerState
from rllm.serving.catalog import ModelPlan
from rllm.serving.observer import InstanceState, Observer
from rllm.serving.pool import Pool, PoolSettings
from rllm.serving.stream import Stream
from rllm.serving.timeouts import Limit
from rllm.settings.limits import InstanceSettings
from rllm.workers.frames import WorkerSpec

StartPool = Callable[..., Any]


class Witness(Observer):
    """Remembers what was reported, and lets a test wait for it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, ...]] = []
        self._changed = asyncio.Event()

    def _note(self, *what: str) -> None:
        self.seen.append(what)
        self._changed.set()

    async def wait_for(self, *what: str, times: int = 1) -> None:
        async with asyncio.timeout(30):
            while self.seen.count(what) < times:
                self._changed.clear()
                await self._changed.wait()

    def on_instance(self, model: str, instance: str, state: InstanceState, reason: str) -> None:
        self._note(instance, state.value)

    def on_lost(self, model: str, instance: str, request: EngineRequest, retried: bool) -> None:
        self._note("lost", request.id, "retried" if retried else "failed")

    def on_timeout(self, model: str, limit: Limit) -> None:
        self._note("timeout", limit.value)

    def on_stall(self, model: str, instance: str, seconds: float) -> None:
        self._note("stall", instance)

    def on_start_failed(self, model: str, instance: str, reason: str) -> None:
        self._note("start failed", instance)

    def on_fewer_slots(self, model: str, instance: str, before: int, after: int) -> None:
        self._note("fewer", instance, str(before), str(after))

    def on_crash_at_start(self, model: str, instance: str, way: str, reason: str) -> None:
        self._note("crash", instance, way)

    def on_fallback(self, model: str, instance: str, fallback: Fallback) -> None:
        self._note("fallback", instance, *fallback.options)

    def on_not_served(self, model: str, reason: str) -> None:
        self._note("not served", model)

    def on_breaker(self, model: str, instance: str, state: BreakerState) -> None:
        self._note("breaker", instance, state.value)

    def on_degraded(self, model: str, level: int, measures: str) -> None:
        self._note("degraded", model, str(level))

    def on_rerouted(self, model: str, to: str, reason: str) -> None:
        self._note("rerouted", model, to, reason)

    def on_rejected(self, model: str, reason: str, bound: str) -> None:
        self._note("rejected", reason)


def ask(name: str, text: str, max_tokens: int = 20, **fields: Any) -> EngineRequest:
    prompt = tuple(FakeVocabulary().tokenize(text, add_special=False, parse_special=True))
    greedy = SamplingParams(temperature=0.0)
    return EngineRequest(id=name, prompt=prompt, max_tokens=max_tokens, sampling=greedy, **fields)


async def text_of(stream: Stream) -> str:
    """
    Raises:
        RllmError: it ended with an error.
    """
    async with asyncio.timeout(30):
        return "".join([event.text async for events in stream for event in events])


async def first_events(stream: Stream) -> str:
    async with asyncio.timeout(30):
        return "".join(event.text for event in await anext(stream))


def plan(
    model: str,
    replicas: int = 1,
    *,
    smaller: str | None = None,
    fallback: str | None = None,
    fallbacks: tuple[dict[str, str], ...] = (),
    **options: Any,
) -> ModelPlan:
    fake = FakeOptions(**{"step_s": 0.01, **options})
    specs = tuple(WorkerSpec(name=f"{model}-{i}", fake=fake, fallbacks=fallbacks) for i in range(replicas))
    return ModelPlan(model, (), FakeVocabulary, specs, smaller, fallback)


@pytest_asyncio.fixture
async def start_pool() -> AsyncIterator[StartPool]:
    """``await start_pool(plans, settings)``: a pool and its witness; stopped after the test."""
    async with AsyncExitStack() as stack:

        async def start(*plans: ModelPlan, stall_s: float = 30.0, **settings: Any) -> tuple[Pool, Witness]:
            witness = Witness()
            instance = settings.pop("instance", InstanceSettings())
            instance = InstanceSettings(60.0, stall_s, instance.breaker)
            pool = Pool(plans, PoolSettings(instance=instance, **settings), witness)
            await pool.start()
            stack.push_async_callback(pool.stop, 0.0)
            return pool, witness

        yield start


__all__ = ["StartPool", "Witness", "ask", "first_events", "plan", "text_of"]
