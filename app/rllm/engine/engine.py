"""The serving loop of one instance, one step at a time: decide, execute, commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rllm.engine.constraint import Constraint, Preparation
from rllm.engine.port import Backend, Plan, StepResult, StoreReport, nothing
from rllm.engine.running import Counters
from rllm.engine.scheduler import Scheduler
from rllm.engine.snapshot import Snapshot
from rllm.engine.types import EngineRequest, Event, Started, StepRecord


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step brought. ``record`` is None when nothing was computed."""

    events: tuple[Event, ...]
    record: StepRecord | None
    started: tuple[Started, ...] = ()


class Engine:
    """Owned by one thread, like the backend it drives."""

    def __init__(self, scheduler: Scheduler, backend: Backend, clock: Callable[[], float]) -> None:
        self._scheduler = scheduler
        self._backend = backend
        self._clock = clock

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    def prepare(self, constraint: Constraint) -> Preparation:
        """See `Backend.prepare`."""
        return self._backend.prepare(constraint)

    def submit(self, request: EngineRequest, arrived_at: float, fault: str | None = None) -> None:
        """``fault``: why it cannot run, if that is known."""
        self._scheduler.submit(request, arrived_at, fault)

    def cancel(self, request_id: str) -> None:
        self._scheduler.cancel(request_id, self._clock())

    def cancel_all(self) -> None:
        self._scheduler.cancel_all(self._clock())

    def snapshot(self) -> Snapshot:
        """Between steps only."""
        return self._scheduler.snapshot(self._clock())

    def check(self) -> None:
        """Recompute every account; raises AssertionError where one is wrong."""
        self._scheduler.check()

    @property
    def overlaps(self) -> bool:
        """Whether what is done meanwhile costs no time: see `ModelInfo.overlaps`."""
        return self._backend.info.overlaps

    def step(self, meanwhile: Callable[[], None] = nothing) -> Outcome:
        """Compute one step; ``meanwhile`` is called once while it is computed, or before.

        Raises:
            BackendFailed: nothing can be computed any more.
        """
        started = self._clock()
        plan = self._scheduler.plan(started)
        planned = self._clock()
        result = self._backend.execute(plan, meanwhile)
        executed = self._clock()
        events = self._scheduler.commit(plan, result, executed)
        committed = self._clock()
        counters = self._scheduler.take_counters()
        record = self._record(plan, result, counters, planned - started, committed - executed)
        return Outcome(tuple(events), record, tuple(counters.started))

    def _record(
        self, plan: Plan, result: StepResult, counters: Counters, plan_s: float, commit_s: float
    ) -> StepRecord:
        store = result.store or StoreReport()
        store_bytes, store_disk_bytes = self._scheduler.store_bytes
        return StepRecord(
            decode_tokens=plan.num_decodes,
            prefill_tokens=plan.num_prefill,
            plan_s=plan_s,
            execute_s=result.execute_s,
            sample_s=result.sample_s,
            commit_s=commit_s,
            running=self._scheduler.num_running,
            waiting=self._scheduler.num_waiting,
            kv_used=self._scheduler.cells_used,
            cached_tokens=counters.cached_tokens,
            evicted_tokens=counters.evicted_tokens,
            preemptions=counters.preemptions,
            kv_blocked=counters.kv_blocked,
            slow_samples=result.slow_samples,
            card_samples=result.card_samples,
            retries=result.retries,
            graphs_reused=result.graphs_reused,
            spills=len(store.saved),
            spill_s=store.save.seconds,
            restores=store.num_restored,
            restored_tokens=store.restored_tokens,
            restore_s=store.restore.seconds,
            store_failures=len(store.lost) + len(store.unwritten),
            store_bytes=store_bytes,
            store_disk_bytes=store_disk_bytes,
            drafted_tokens=plan.num_drafted,
            accepted_tokens=counters.accepted_tokens,
            prefill_token_s=self._scheduler.prefill_token_s,
        )
