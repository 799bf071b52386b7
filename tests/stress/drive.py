"""The real engine, step by step: everybody at once, or one request after the other on an empty cache."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rllm.engine.build import build_scheduler
from rllm.engine.drafts import Drafter
from rllm.engine.engine import Engine
from rllm.engine.port import Backend, CloseSampler, Plan, Truncate
from rllm.engine.scheduler import Scheduler
from rllm.engine.types import EngineRequest, Event, FinishReason
from tests.stress.workload import Arrival


@dataclass
class Said:
    tokens: list[int] = field(default_factory=list)
    finish: FinishReason | None = None
    cached: int = 0


@dataclass
class Together:
    """What everybody got, and what the scheduler had to do for it."""

    said: dict[str, Said]
    steps: int = 0
    seconds: float = 0.0
    most_running: int = 0
    cached_tokens: int = 0
    evicted_tokens: int = 0
    preemptions: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


def together(backend: Backend, arrivals: Sequence[Arrival], drafter: Drafter | None = None) -> Together:
    """All requests through one engine; arrivals and leavings happen between the steps they name."""
    engine, scheduler = _engine(backend, prefix_cache=True, drafter=drafter)
    result = Together({arrival.request.id: Said() for arrival in arrivals})
    waiting = list(arrivals)
    leaving = sorted((a.leaves, a.request.id) for a in arrivals if a.leaves is not None)
    began = time.monotonic()
    while waiting or engine.has_work:
        while waiting and (waiting[0].step <= result.steps or not engine.has_work):
            engine.submit(waiting.pop(0).request, time.monotonic())
        while leaving and leaving[0][0] <= result.steps:
            engine.cancel(leaving.pop(0)[1])
        outcome = engine.step()
        result.steps += 1
        _hear(result.said, outcome.events)
        if outcome.record is not None:
            result.most_running = max(result.most_running, outcome.record.running)
            result.cached_tokens += outcome.record.cached_tokens
            result.evicted_tokens += outcome.record.evicted_tokens
            result.preemptions += outcome.record.preemptions
            result.drafted_tokens += outcome.record.drafted_tokens
            result.accepted_tokens += outcome.record.accepted_tokens
        scheduler.check()
    result.seconds = time.monotonic() - began
    return result


def alone(backend: Backend, request: EngineRequest) -> Said:
    """One request on an empty cache, without any reuse."""
    seqs = range(backend.info.num_sequences)
    backend.execute(Plan(tuple(op for seq in seqs for op in (Truncate(seq, 0), CloseSampler(seq)))))
    engine, _ = _engine(backend, prefix_cache=False)
    said = {request.id: Said()}
    engine.submit(request, time.monotonic())
    while engine.has_work:
        _hear(said, engine.step().events)
    return said[request.id]


def _engine(
    backend: Backend, *, prefix_cache: bool, drafter: Drafter | None = None
) -> tuple[Engine, Scheduler]:
    scheduler = build_scheduler(
        backend.info,
        backend.vocabulary,
        prefix_cache=prefix_cache,
        drafter=drafter,
    )
    return Engine(scheduler, backend, time.monotonic), scheduler


def _hear(said: dict[str, Said], events: Sequence[Event]) -> None:
    for event in events:
        one = said[event.request_id]
        assert one.finish is None, "an event after the last one"
        one.tokens.extend(event.tokens)
        one.finish = event.finish
        if event.usage is not None:
            one.cached = event.usage.cached_tokens
