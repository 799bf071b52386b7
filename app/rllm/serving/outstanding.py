"""What one instance has been given and not finished, and what may be expected of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rllm.engine.types import EngineRequest, Event, FinishReason, ModelInfo, StepRecord
from rllm.errors import EngineError
from rllm.serving.admission import Load, predicted_ttft_s
from rllm.serving.breaker import Breaker
from rllm.serving.observer import Observer
from rllm.serving.offer import Offer, Submit
from rllm.serving.pending import Estimate, Pending
from rllm.serving.prefixes import BLOCK, BlockKeys, PrefixMap
from rllm.serving.rates import Rates
from rllm.workers.frames import StepFrame


@dataclass(frozen=True, slots=True)
class Progress:
    """Hears how requests get on."""

    on_started: Callable[[Pending], None]
    on_first_token: Callable[[Pending], None]
    on_over: Callable[[Pending, int], None]
    """The worker has let go of it; it used so many tokens."""


class Outstanding:
    """Keeps the account of one instance's requests, from the frames of whichever worker it has."""

    def __init__(
        self,
        model: str,
        instance: str,
        observer: Observer,
        breaker: Breaker,
        progress: Progress,
        on_end: Callable[[Pending, Event, float], None],
    ) -> None:
        """``on_end`` gets the last event of each request and the time."""
        self.info: ModelInfo | None = None
        """What the worker can hold. None: none has loaded its model yet."""
        self._model = model
        self._instance = instance
        self._observer = observer
        self._breaker = breaker
        self._progress = progress
        self._on_end = on_end
        self._rates = Rates()
        self._prefixes = PrefixMap(0)
        self.pending: dict[str, Pending] = {}
        """Requests by their id, from `add` until the worker has let go of them."""

    # --- what may be expected -------------------------------------------------------------------

    def load(self, num_new: int = 1) -> Load:
        """The load now, for a decision about ``num_new`` more requests."""
        info = self._known()
        uncached = queued = work = 0
        for pending in self.pending.values():
            work += pending.estimate.output_tokens
            if not pending.has_token:
                uncached += pending.estimate.uncached_tokens
            if not pending.has_slot:
                queued += pending.estimate.uncached_tokens
        num = len(self.pending)
        return Load(
            slots=info.slots,
            ctx_per_slot=info.ctx_per_slot,
            requests=num,
            outstanding_tokens=uncached + work,
            pending_prompt_tokens=uncached,
            queued_prompt_tokens=queued,
            gap_s=self.gap_s,
            prefill_token_s=self._rates.prefill_token_s,
            output_tokens=self._rates.output.usual,
            frees_s=self._frees_s() if num + num_new > info.slots else (),
            ttft_margin_s=self._rates.margin.seconds(time.monotonic()),
        )

    @property
    def gap_s(self) -> float | None:
        """Seconds between two requests that leave while all slots are taken. None: none has left yet."""
        return self._rates.drain.gap_s(self._known().slots)

    def _frees_s(self) -> tuple[float, ...]:
        """Seconds until each sequence that holds a slot will probably end, soonest first."""
        if (gap_s := self._rates.token_gap.seconds) is None:
            return ()
        more = self._rates.output.expect_more
        running = (pending for pending in self.pending.values() if pending.has_slot)
        return tuple(sorted(gap_s * more(p.output_tokens, p.request.max_tokens) for p in running))

    def offer(
        self, requests: Sequence[EngineRequest], prefixes: Sequence[BlockKeys], submit: Submit
    ) -> Offer:
        """What the instance would do for these sequences. ``submit`` is how it is given them."""
        load = later = self.load(len(requests))
        before: set[int] = set()
        total, estimates = 0, []
        for request, prefix in zip(requests, prefixes, strict=True):
            uncached = len(request.prompt) - self._prefixes.match(prefix, before)
            output = min(request.max_tokens, load.output_tokens)
            estimates.append(Estimate(uncached, output, predicted_ttft_s(later, uncached)))
            total += uncached
            if len(estimates) < len(requests):  # the next one comes behind this one and finds its prompt
                later = later.with_another(uncached)
                before.update(prefix)
        return Offer(requests, prefixes, load, estimates, total, submit)

    def _known(self) -> ModelInfo:
        if self.info is None:
            raise RuntimeError(f"{self._instance} has not loaded its model")
        return self.info

    # --- what the worker does -------------------------------------------------------------------

    def begin(self, info: ModelInfo, *, reuses_prefixes: bool) -> None:
        """Another worker is ready, and has nothing in its cache."""
        self.info = info
        self._prefixes = PrefixMap(info.kv_cells // BLOCK if reuses_prefixes else 0)

    def add(self, pending: Pending) -> None:
        """Count in a request that the worker is given."""
        pending.attempts += 1
        self.pending[pending.request.id] = pending
        self._prefixes.add(pending.prefix)

    def hear(self, frame: StepFrame) -> None:
        """Pass on what one step has brought."""
        now = time.monotonic()
        if frame.step is not None:
            self._note_step(frame.step)
        for started in frame.started:
            if (pending := self.pending.get(started.request_id)) is not None:
                pending.times.started_at = now
                pending.seq, pending.cached_tokens = started.seq, started.cached_tokens
                self._observer.on_started(self._model, self._instance, pending.request)
                self._progress.on_started(pending)
        for event in frame.events:
            if (pending := self.pending.get(event.request_id)) is not None:
                self._on_event(pending, event, now)

    def _note_step(self, step: StepRecord) -> None:
        if step.prefill_token_s is not None:  # a new worker has yet to learn it
            self._rates.prefill_token_s = step.prefill_token_s
        self._observer.on_step(self._model, self._instance, step)

    def _on_event(self, pending: Pending, event: Event, now: float) -> None:
        if event.tokens:
            self._note_tokens(pending, len(event.tokens), now)
        if event.finish is None:
            pending.stream.put(event, now)
            return
        del self.pending[pending.request.id]
        self._note_end(pending, event, now)
        if event.finish is FinishReason.ERROR:
            pending.stream.fail(EngineError(event.error or "the request failed"))
        else:
            pending.stream.put(event, now)
        used = 0 if event.usage is None else event.usage.prompt_tokens + event.usage.completion_tokens
        self._progress.on_over(pending, used)

    def _note_tokens(self, pending: Pending, count: int, now: float) -> None:
        times, last_at = pending.times, pending.times.last_token_at
        pending.output_tokens += count
        times.last_token_at = now
        if last_at is not None:
            self._rates.token_gap.add(now - last_at)
            self._observer.on_token_gap(self._model, self._instance, now - last_at)
            return
        if pending.attempts == 1:  # a later attempt is late for a reason that nobody forecasts
            self._rates.margin.add(now, pending.estimate.ttft_s, now - times.accepted_at)
        self._observer.on_first_token(self._model, self._instance, now - times.accepted_at)
        self._progress.on_first_token(pending)

    def _note_end(self, pending: Pending, event: Event, now: float) -> None:
        times = pending.times
        self._on_end(pending, event, now)
        seconds = now - times.accepted_at
        self._observer.on_finished(self._model, self._instance, pending.request, event, seconds)
        # Cancelling says nothing about the engine, and nothing about how long answers are.
        if event.finish is FinishReason.ERROR:
            self._breaker.failed(now)
        elif event.finish is not FinishReason.CANCELLED:
            self._breaker.succeeded(now)
            self._rates.output.finished(event.usage.completion_tokens if event.usage else 0)
        self._breaker.tell(now)
        if times.started_at is not None:
            saturated = len(self.pending) >= self._known().slots
            self._rates.drain.finished(now, saturated=saturated, held_s=now - times.started_at)

    def lose(self) -> list[Pending]:
        """Give up what the worker had: it is gone."""
        lost, self.pending = list(self.pending.values()), {}
        self._prefixes.clear()
        self._rates.drain.forget_saturation()
        return lost
