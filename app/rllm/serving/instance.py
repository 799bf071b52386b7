"""One instance of a model: a worker process, replaced when it dies, and the flights that depend on it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from rllm import background
from rllm.backends.options import Fallback, fewer
from rllm.engine.types import EngineRequest, Event, FinishReason, ModelInfo, StepRecord
from rllm.errors import EngineError, StartError
from rllm.serving.admission import Load, predicted_ttft_s
from rllm.serving.backoff import Backoff
from rllm.serving.breaker import Breaker, BreakerSettings, BreakerState
from rllm.serving.dispatcher import Candidate
from rllm.serving.fallbacks import Ways
from rllm.serving.flight import Flight
from rllm.serving.observer import InstanceState, Observer
from rllm.serving.prefixes import BLOCK, PrefixMap
from rllm.serving.rates import DrainRate, ForecastMargin, OutputLength, PrefillRate, TokenGap
from rllm.serving.view import InstanceView
from rllm.serving.watchdog import Watchdog
from rllm.serving.window import Window
from rllm.workers.frames import Cancel, Inspect, LogLine, Ready, StepFrame, Submit, WorkerSpec
from rllm.workers.process import WorkerProcess

_SHOWN = (
    "description",
    "device",
    "slots",
    "num_sequences",
    "ctx_per_slot",
    "kv_cells",
    "kv_bytes",
    "kv_unified",
    "compute",
)
"""Of what a loaded instance says about itself."""


@dataclass(frozen=True, slots=True)
class InstanceSettings:
    start_timeout_s: float = 600.0
    stall_timeout_s: float = 30.0
    """Work outstanding and no step for so long: the worker is killed and replaced. 0: never."""
    breaker: BreakerSettings = BreakerSettings()


@dataclass(frozen=True, slots=True)
class Hooks:
    """What an instance tells the group it belongs to."""

    on_up: Callable[[], None]
    """A worker was replaced and takes requests."""
    on_started: Callable[[Flight], None]
    on_token: Callable[[Flight], None]
    """Its first one."""
    on_over: Callable[[Flight], None]
    on_lost: Callable[[str, list[Flight]], None]
    """Name of the instance. The worker is gone and had these; nobody works on them now."""


class Instance:
    """Lives on the event loop. `start` once, `stop` once; between them it keeps a worker running."""

    def __init__(
        self, model: str, spec: WorkerSpec, observer: Observer, settings: InstanceSettings, hooks: Hooks
    ) -> None:
        self.model = model
        self.name = spec.name
        self.state = InstanceState.LOADING
        self.info: ModelInfo | None = None
        self.fallback = spec.fallback
        self.tuned = spec.tuned
        self.breaker = Breaker(settings.breaker)
        self.drain = DrainRate()
        self.prefill = PrefillRate()
        self._output = OutputLength()
        self._token_gap = TokenGap()
        self._margin = ForecastMargin()
        self._spec = spec
        self._observer = observer
        self._settings = settings
        self._hooks = hooks
        self._backoff = Backoff()
        self._watchdog = Watchdog(settings.stall_timeout_s, self._on_stall)
        self._prefixes = PrefixMap(0)
        self._window = Window(self._inspect)
        self._reason = ""
        self._restarts = 0
        self._worker: WorkerProcess | None = None
        self._flights: dict[str, Flight] = {}
        self._pending_prompt_tokens = 0
        self._outstanding_tokens = 0
        self._restart: asyncio.Task[None] | None = None
        self._stalled = False
        self._told_breaker = BreakerState.CLOSED

    # --- what others look at --------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        return self.state is InstanceState.READY

    def is_open_to(self, now: float) -> bool:
        """May be given another request."""
        return self.is_ready and self.breaker.allows(now, len(self._flights))

    @property
    def load(self) -> Load:
        info = self._known()
        is_full = len(self._flights) >= info.slots
        return Load(
            slots=info.slots,
            ctx_per_slot=info.ctx_per_slot,
            requests=len(self._flights),
            pending_prompt_tokens=self._pending_prompt_tokens,
            queued_prompt_tokens=self._queued_prompt_tokens() if is_full else 0,
            gap_s=self.gap_s,
            prefill_token_s=self.prefill.token_s,
            frees_s=self._frees_s() if is_full else (),
            ttft_margin_s=self._margin.seconds(time.monotonic()),
        )

    @property
    def gap_s(self) -> float | None:
        """Between two requests that leave while all slots are taken. None: nothing has finished yet."""
        return self.drain.gap_s(self._known().slots)

    def _queued_prompt_tokens(self) -> int:
        return sum(f.uncached_tokens for f in self._flights.values() if not f.has_slot)

    def _frees_s(self) -> tuple[float, ...]:
        """Until each sequence that holds a slot will probably end, soonest first."""
        if (gap_s := self._token_gap.seconds) is None:
            return ()
        more = self._output.expect_more
        running = (flight for flight in self._flights.values() if flight.has_slot)
        return tuple(sorted(gap_s * more(f.output_tokens, f.request.max_tokens) for f in running))

    def candidate(self, request: EngineRequest) -> Candidate:
        return Candidate(
            outstanding_tokens=self._outstanding_tokens,
            free_slots=self._known().slots - len(self._flights),
            resident_tokens=self._prefixes.match(request.prompt, request.salt),
        )

    @property
    def num_outstanding(self) -> int:
        return len(self._flights)

    @property
    def pid(self) -> int:
        return self._worker.pid if self._worker else 0

    async def refresh(self) -> None:
        """Ask the worker what it is doing, for a `view` soon."""
        if self.is_ready:
            await self._window.refresh(time.monotonic())

    def view(self, since: float) -> InstanceView:
        """``since``: of the spans, those that ended later."""
        now = time.monotonic()
        view = InstanceView(
            name=self.name,
            state=self.state.value,
            reason=self._reason,
            breaker=self.breaker.state(now).value,
            breaker_reopens_s=self.breaker.reopens_in_s(now),
            restarts=self._restarts,
            outstanding=len(self._flights),
            fallback=self.fallback,
            tuned=self.tuned,
            spans=self._window.spans(since),
        )
        if (info := self.info) is not None:
            shown = {name: getattr(info, name) for name in _SHOWN}
            view = msgspec.structs.replace(view, **shown)
        if (snapshot := self._window.snapshot) is not None:
            view = msgspec.structs.replace(
                view,
                waiting=snapshot.waiting,
                oldest_wait_s=snapshot.oldest_wait_s,
                kv_used=snapshot.kv_used,
                snapshot_age_s=max(0.0, now - snapshot.taken_at),
                sequences=snapshot.sequences,
            )
        return view

    def _inspect(self) -> None:
        if self._worker is not None:
            self._worker.send(Inspect())

    def _known(self) -> ModelInfo:
        if self.info is None:
            raise RuntimeError(f"{self.name} has not loaded its model")
        return self.info

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
        ready = await self._start_worker()
        self.info = info = ready.info
        self._note_slots(info.slots)
        if info.can_reuse_prefix and self._spec.scheduler.prefix_cache:
            self._prefixes = PrefixMap(info.kv_cells // BLOCK)
        self._backoff.succeeded(time.monotonic())
        self._observer.on_ready(self.model, self.name, info, ready.pid)
        if self.fallback is not None:
            self._observer.on_fallback(self.model, self.name, self.fallback)
        self._change(InstanceState.READY, "")
        return info

    async def _start_worker(self) -> Ready:
        """Where memory is short, with fewer slots until it starts or one is too much; where it crashes, with
        one fallback after the other."""
        ways = Ways(self._spec)
        while True:
            worker = WorkerProcess(
                ways.apply(self._spec),
                on_frame=self._on_frame,
                on_exit=self._on_exit,
                on_log=self._on_log,
                on_snapshot=self._window.heard,
            )
            self._worker = worker
            try:
                ready = await worker.start(self._settings.start_timeout_s)
            except StartError as error:
                if worker.crashed_at_start:
                    self._observer.on_crash_at_start(self.model, self.name, ways.words, str(error))
                    ways.failed(str(error), certain=not worker.was_stuck)
                elif not (worker.was_out_of_memory and self._give_up_slots()):
                    raise
                await worker.stop(grace_s=0)
            else:
                self._keep(ways)
                return ready

    def _keep(self, ways: Ways) -> None:
        """Later workers are started the way that worked."""
        if (fallback := ways.fallback) is not None:
            self._spec = ways.apply(self._spec)
            self.fallback = fallback

    def _give_up_slots(self) -> bool:
        """The next worker gets fewer. False: there is only one left."""
        slots = self._spec.slots
        self._note_slots(fewer(slots))
        return self._spec.slots < slots

    def _note_slots(self, slots: int) -> None:
        """Later workers are not given more than this one could have."""
        before = self._spec.slots
        if slots < before:
            self._spec = self._spec.with_slots(slots)
            self._observer.on_fewer_slots(self.model, self.name, before, slots)

    async def _relaunch(self) -> None:
        """Try until it works, with growing pauses; jitter keeps several instances from starting at once."""
        while True:
            await asyncio.sleep(self._backoff.pause_s(time.monotonic(), random.random()))
            try:
                if self._worker is not None:
                    await self._worker.stop(grace_s=0)
                await self._launch()
            except Exception as error:  # the top of a task, and nobody else would try again
                self._reason = str(error) if isinstance(error, StartError) else repr(error)
                self._observer.on_start_failed(self.model, self.name, self._reason)
            else:
                self._hooks.on_up()
                return

    async def stop(self) -> None:
        """End the worker. Flights that are left have been answered before."""
        if self.state is not InstanceState.FAILED:
            self._change(InstanceState.STOPPED, "")
        self._watchdog.stop()
        if self._restart is not None:
            self._restart.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._restart
        if self._worker is not None:
            await self._worker.stop()

    def _change(self, state: InstanceState, reason: str) -> None:
        if state is not self.state:
            self.state = state
            self._reason = reason
            self._observer.on_instance(self.model, self.name, state, reason)

    # --- flights --------------------------------------------------------------------------------

    def submit(self, flight: Flight) -> None:
        """Hand a flight to the worker. The instance must be READY.

        A flight that lost another worker is in line where it was: behind those who had come before it.
        """
        if self._worker is None or not self.is_ready:
            raise RuntimeError(f"{self.name} is {self.state.value}")
        request = flight.request
        resident = self._prefixes.match(request.prompt, request.salt)
        flight.instance = self
        flight.attempts += 1
        flight.uncached_tokens = len(request.prompt) - resident
        flight.predicted_ttft_s = predicted_ttft_s(self.load, flight.uncached_tokens)
        flight.expected_tokens = self._output.expect(request.max_tokens)
        self._prefixes.add(request.prompt, request.salt)
        self._flights[request.id] = flight
        self._pending_prompt_tokens += flight.uncached_tokens
        self._outstanding_tokens += flight.uncached_tokens + flight.expected_tokens
        self._watchdog.work()
        self._worker.send(Submit(request=request, sent_at=flight.times.accepted_at))
        self._observer.on_accepted(self.model, self.name, request)

    def cancel(self, flight: Flight) -> None:
        """Nobody wants it any more. It counts as outstanding until the worker has let go."""
        if self._worker is not None:
            self._worker.send(Cancel(request_id=flight.request.id))

    def _on_frame(self, frame: StepFrame) -> None:
        now = time.monotonic()
        if frame.step is not None:
            self._note_step(frame.step)
        for started in frame.started:
            if (flight := self._flights.get(started.request_id)) is not None:
                flight.times.started_at = now
                flight.seq, flight.cached_tokens = started.seq, started.cached_tokens
                self._observer.on_started(self.model, self.name, flight.request)
                self._hooks.on_started(flight)
        for event in frame.events:
            flight = self._flights.get(event.request_id)
            if flight is not None:
                self._on_event(flight, event, now)
        if frame.events or (frame.step and frame.step.decode_tokens + frame.step.prefill_tokens):
            self._watchdog.progress()

    def _note_step(self, step: StepRecord) -> None:
        seconds = step.plan_s + step.execute_s + step.sample_s + step.commit_s
        self.prefill.step(step.prefill_tokens, seconds)
        self._observer.on_step(self.model, self.name, step)

    def _on_event(self, flight: Flight, event: Event, now: float) -> None:
        if event.tokens:
            self._note_tokens(flight, len(event.tokens), now)
        if event.finish is None:
            flight.stream.put(event, now)
            return
        self._remove(flight)
        self._note_end(flight, event, now)
        if event.finish is FinishReason.ERROR:
            flight.stream.fail(EngineError(event.error or "the request failed"))
        else:
            flight.stream.put(event, now)
        used = 0 if event.usage is None else event.usage.prompt_tokens + event.usage.completion_tokens
        flight.close(used)
        self._hooks.on_over(flight)

    def _note_tokens(self, flight: Flight, count: int, now: float) -> None:
        times = flight.times
        flight.output_tokens += count
        if times.last_token_at is None:
            times.last_token_at = now
            self._pending_prompt_tokens -= flight.uncached_tokens
            self._outstanding_tokens -= flight.uncached_tokens
            if flight.attempts == 1:
                self._margin.add(now, flight.predicted_ttft_s, now - times.accepted_at)
            self._observer.on_first_token(self.model, self.name, now - times.accepted_at)
            self._hooks.on_token(flight)
        else:
            self._token_gap.add(now - times.last_token_at)
            self._observer.on_token_gap(self.model, self.name, now - times.last_token_at)
            times.last_token_at = now

    def _note_end(self, flight: Flight, event: Event, now: float) -> None:
        times = flight.times
        self._window.ended(flight, event, now)
        self._observer.on_finished(self.model, self.name, flight.request, event, now - times.accepted_at)
        if event.finish is FinishReason.ERROR:
            self.breaker.failed(now)
        elif event.finish is not FinishReason.CANCELLED:
            self.breaker.succeeded(now)
            self._output.finished(event.usage.completion_tokens if event.usage else 0)
        self._tell_breaker(now)
        if times.started_at is not None:
            saturated = len(self._flights) >= self._known().slots
            self.drain.finished(now, saturated=saturated, held_s=now - times.started_at)

    def _remove(self, flight: Flight) -> None:
        del self._flights[flight.request.id]
        self._outstanding_tokens -= flight.expected_tokens
        if flight.times.last_token_at is None:
            self._pending_prompt_tokens -= flight.uncached_tokens
            self._outstanding_tokens -= flight.uncached_tokens
        if not self._flights:
            self._watchdog.idle()

    # --- faults ---------------------------------------------------------------------------------

    def _on_stall(self, seconds: float) -> None:
        """The process cannot be asked any more; killing works on a stopped one too."""
        self._stalled = True
        self._observer.on_stall(self.model, self.name, seconds)
        if self._worker is not None:
            self._worker.dump_and_kill()

    def _go_on_without_graphs(self, reason: str) -> None:
        """A kernel that never ends in a replayed CUDA graph is what was seen to stop a healthy worker: later
        ones do without, where nobody has chosen."""
        changes = {"cuda_graphs": "off"}
        if changes in self._spec.fallbacks and (spec := self._spec.with_options(changes)) != self._spec:
            self._spec = spec
            options = {**(self.fallback.options if self.fallback is not None else {}), **changes}
            self.fallback = Fallback(options=options, reason=reason, certain=False)

    def _on_exit(self, error: EngineError) -> None:
        """The worker is gone: its flights go back to the group, and another worker is started."""
        flights, self._flights = list(self._flights.values()), {}
        self._pending_prompt_tokens = self._outstanding_tokens = 0
        self._prefixes.clear()
        self._window.closed()
        self.drain.forget_saturation()
        self._watchdog.idle()
        if self.is_ready:
            now = time.monotonic()
            self.breaker.failed(now)
            self._tell_breaker(now)
            reason = "it made no progress and was killed" if self._stalled else str(error)
            if self._stalled:
                self._go_on_without_graphs(reason)
            self._stalled = False
            self._restarts += 1
            if self._worker is not None and self._worker.was_out_of_memory:
                self._give_up_slots()
            self._change(InstanceState.RESTARTING, reason)
            self._restart = background.start(self._relaunch(), name=f"restart-{self.name}")
        for flight in flights:
            self._window.lost(flight, time.monotonic())
            flight.instance = None
            flight.seq = -1
        if flights:
            self._hooks.on_lost(self.name, flights)

    def _tell_breaker(self, now: float) -> None:
        state = self.breaker.state(now)
        if state is not self._told_breaker:
            self._told_breaker = state
            self._observer.on_breaker(self.model, self.name, state)

    def _on_log(self, line: LogLine) -> None:
        self._observer.on_log(self.name, line.level, line.text, line.sequences)
