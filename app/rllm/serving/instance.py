"""One instance of a model: the life of a worker process, which is replaced when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from rllm import background
from rllm.backends.options import Fallback
from rllm.engine.types import ModelInfo
from rllm.errors import EngineError, StartError
from rllm.serving.breaker import Breaker
from rllm.serving.inspector import Inspector
from rllm.serving.observer import InstanceState, Observer
from rllm.serving.outstanding import Outstanding, Progress
from rllm.serving.pending import Pending
from rllm.serving.starter import Starter
from rllm.serving.view import InstanceView
from rllm.serving.watchdog import Watchdog
from rllm.settings.limits import InstanceSettings
from rllm.workers.frames import Cancel, Inspect, LogLine, StepFrame, Submit, WorkerSpec
from rllm.workers.process import WorkerProcess


@dataclass(frozen=True, slots=True)
class Hooks:
    """What an instance tells the group it belongs to."""

    on_up: Callable[[], None]
    """A worker was replaced and takes requests."""
    on_lost: Callable[[str, list[Pending]], None]
    """The worker of the instance of this name is gone. It had these; nobody works on them now."""
    progress: Progress


@dataclass(slots=True)
class Status:
    """What has become of an instance."""

    state: InstanceState = InstanceState.LOADING
    reason: str = ""
    """Why it is in this state, where that is worth a word."""
    restarts: int = 0
    stalled: bool = False
    """The watchdog has had its worker killed, whose exit is on its way."""


class Instance:
    """Lives on the event loop. `start` once, `stop` once; between them it keeps a worker running."""

    def __init__(
        self, model: str, spec: WorkerSpec, observer: Observer, settings: InstanceSettings, hooks: Hooks
    ) -> None:
        self.name = spec.name
        self.status = Status()
        self.breaker = Breaker(settings.breaker, partial(observer.on_breaker, model, spec.name))
        self._model = model
        self._observer = observer
        self._hooks = hooks
        self._starter = Starter(model, spec, observer, settings.start_timeout_s)
        self._watchdog = Watchdog(settings.stall_timeout_s, self._on_stall)
        self._inspector = Inspector(self._inspect)
        self.outstanding = Outstanding(
            model, spec.name, observer, self.breaker, hooks.progress, self._inspector.ended
        )
        self._worker: WorkerProcess | None = None
        self._restart: asyncio.Task[None] | None = None

    @property
    def is_ready(self) -> bool:
        return self.status.state is InstanceState.READY

    def is_open_to(self, now: float) -> bool:
        """Whether it may be given another request."""
        return self.is_ready and self.breaker.allows(now, len(self.outstanding.pending))

    @property
    def info(self) -> ModelInfo | None:
        return self.outstanding.info

    @property
    def fallback(self) -> Fallback | None:
        """Options that it computes only with."""
        return self._starter.fallback

    @property
    def tuned(self) -> dict[str, str | int]:
        """Options that were measured to be fastest on this machine."""
        return self._starter.spec.tuned

    @property
    def pid(self) -> int:
        return self._worker.pid if self._worker else 0

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> ModelInfo:
        """
        Raises:
            StartError: the worker could not load the model. It is not tried again.
        """
        try:
            return await self._launch()
        except StartError as error:
            self._change(InstanceState.FAILED, str(error))
            raise

    async def _launch(self) -> ModelInfo:
        ready = await self._starter.start(self._make_worker)
        info = ready.info
        reuses = info.can_reuse_prefix and self._starter.spec.scheduler.prefix_cache
        self.outstanding.begin(info, reuses_prefixes=reuses)
        self._observer.on_ready(self._model, self.name, info, ready.pid)
        if self.fallback is not None:
            self._observer.on_fallback(self._model, self.name, self.fallback)
        self._change(InstanceState.READY, "")
        return info

    def _make_worker(self, spec: WorkerSpec) -> WorkerProcess:
        self._worker = WorkerProcess(
            spec,
            on_frame=self._on_frame,
            on_exit=self._on_exit,
            on_log=self._on_log,
            on_snapshot=self._inspector.heard,
        )
        return self._worker

    async def _relaunch(self) -> None:
        """Try until it works."""
        while True:
            await asyncio.sleep(self._starter.pause_s())
            try:
                if self._worker is not None:
                    await self._worker.stop(grace_s=0)
                await self._launch()
            except Exception as error:  # the top of a task, and nobody else would try again
                self.status.reason = str(error) if isinstance(error, StartError) else repr(error)
                self._observer.on_start_failed(self._model, self.name, self.status.reason)
            else:
                self._hooks.on_up()
                return

    async def stop(self) -> None:
        """End the worker. Requests that are left have been answered before."""
        if self.status.state is not InstanceState.FAILED:
            self._change(InstanceState.STOPPED, "")
        self._watchdog.stop()
        if self._restart is not None:
            self._restart.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._restart
        if self._worker is not None:
            await self._worker.stop()

    def _change(self, state: InstanceState, reason: str) -> None:
        if state is not self.status.state:
            self.status.state, self.status.reason = state, reason
            self._observer.on_instance(self._model, self.name, state, reason)

    # --- work -----------------------------------------------------------------------------------

    def submit(self, sequences: Sequence[Pending]) -> None:
        """Hand all sequences of a request to the worker at once. The instance must be READY.

        One that lost another worker is in line where it was: behind those who had come before it.
        """
        if self._worker is None or not self.is_ready:
            raise RuntimeError(f"{self.name} is {self.status.state.value}")
        requests = tuple(pending.request for pending in sequences)
        for pending in sequences:
            self.outstanding.add(pending)
        self._watchdog.work()
        self._worker.send(Submit(requests=requests, sent_at=sequences[0].times.accepted_at))
        for request in requests:
            self._observer.on_accepted(self._model, self.name, request)

    def cancel(self, pending: Pending) -> None:
        """Tell the worker to stop. The request counts as outstanding until the worker has let go."""
        if self._worker is not None:
            self._worker.send(Cancel(request_id=pending.request.id))

    def _on_frame(self, frame: StepFrame) -> None:
        self.outstanding.hear(frame)
        if not self.outstanding.pending:
            self._watchdog.idle()
        if frame.events or (frame.step and frame.step.decode_tokens + frame.step.prefill_tokens):
            self._watchdog.progress()

    def _on_log(self, line: LogLine) -> None:
        self._observer.on_log(self.name, line.level, line.text, line.sequences)

    # --- inspection -----------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Ask the worker what it is doing, for a `view` soon."""
        if self.is_ready:
            await self._inspector.refresh(time.monotonic())

    def view(self, since: float) -> InstanceView:
        """``since``: only spans that ended later."""
        now = time.monotonic()
        own = InstanceView(
            name=self.name,
            state=self.status.state.value,
            reason=self.status.reason,
            breaker=self.breaker.state(now).value,
            breaker_reopens_s=self.breaker.reopens_in_s(now),
            restarts=self.status.restarts,
            outstanding=len(self.outstanding.pending),
            fallback=self.fallback,
            tuned=self.tuned,
        )
        return self._inspector.complete(own, self.info, since, now)

    def _inspect(self) -> None:
        if self._worker is not None:
            self._worker.send(Inspect())

    # --- faults ---------------------------------------------------------------------------------

    def _on_stall(self, seconds: float) -> None:
        """Kill the worker: it cannot be asked any more. That works on a stopped process, too."""
        self.status.stalled = True
        self._observer.on_stall(self._model, self.name, seconds)
        if self._worker is not None:
            self._worker.dump_and_kill()

    def _on_exit(self, error: EngineError) -> None:
        """Give the requests back to the group and start another worker."""
        now = time.monotonic()
        lost = self.outstanding.lose()
        self._inspector.closed()
        self._watchdog.idle()
        if self.is_ready:  # else it is being started or stopped, and somebody waits for that
            self._replace(str(error), now)
        for pending in lost:
            self._inspector.lost(pending, now)
            pending.seq = -1
        if lost:
            self._hooks.on_lost(self.name, lost)

    def _replace(self, reason: str, now: float) -> None:
        self.breaker.failed(now)
        self.breaker.tell(now)
        if self.status.stalled:
            reason = "it made no progress and was killed"
            self._starter.give_up_graphs(reason)
        self.status.stalled = False
        self.status.restarts += 1
        if self._worker is not None and self._worker.was_out_of_memory:
            self._starter.give_up_slots()
        self._change(InstanceState.RESTARTING, reason)
        self._restart = background.start(self._relaunch(), name=f"restart-{self.name}")
