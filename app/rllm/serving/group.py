"""The instances of one model and its requests: accepted once, ended once, whatever becomes of workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from rllm.engine.types import ModelInfo
from rllm.errors import EngineError, RllmError
from rllm.serving.instance import Hooks, Instance
from rllm.serving.limits import Permit
from rllm.serving.observer import Observer
from rllm.serving.offer import Offer
from rllm.serving.outstanding import Progress
from rllm.serving.pending import Pending
from rllm.serving.router import Router
from rllm.serving.stream import Stream
from rllm.serving.terms import Terms
from rllm.serving.timeouts import Times, error_of, next_limit
from rllm.settings.limits import InstanceSettings, Limits, Timeouts
from rllm.workers.frames import WorkerSpec


class Group:
    """Owns the model's requests from `accept` until they are over."""

    def __init__(
        self,
        model: str,
        specs: Sequence[WorkerSpec],
        observer: Observer,
        *,
        limits: Limits,
        timeouts: Timeouts,
        settings: InstanceSettings,
        on_change: Callable[[], None],
    ) -> None:
        """``on_change`` hears of every request that ended, and of workers that came back."""
        self._model = model
        self._observer = observer
        self._timeouts = timeouts
        self._on_change = on_change
        progress = Progress(on_started=self._watch, on_first_token=self._watch, on_over=self._finish)
        hooks = Hooks(on_up=self._on_up, on_lost=self._on_lost, progress=progress)
        self.instances = [Instance(model, spec, observer, settings, hooks) for spec in specs]
        self.router = Router(model, self.instances, limits, timeouts)
        self._pending: dict[str, Pending] = {}
        self._parked: list[Pending] = []
        """Requests that lost their worker and wait for another."""
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self) -> ModelInfo:
        """
        Raises:
            StartError: an instance could not load the model.
        """
        infos = await asyncio.gather(*(instance.start() for instance in self.instances))
        return infos[0]

    async def drained(self) -> None:
        """Wait until nothing is outstanding."""
        await self._idle.wait()

    async def stop(self, reason: RllmError) -> None:
        """Tell everybody who still waits ``reason``, then end the workers."""
        for pending in list(self._pending.values()):
            pending.stream.fail(reason)
        await asyncio.gather(*(instance.stop() for instance in self.instances))
        for pending in list(self._pending.values()):
            self._finish(pending)

    @property
    def utilization(self) -> float:
        """Requests per slot of the instances that are up. With none up, one's slots count."""
        slots = [instance.info.slots for instance in self.instances if instance.info and instance.is_ready]
        one = next((instance.info.slots for instance in self.instances if instance.info), 1)
        return len(self._pending) / (sum(slots) or one)

    @property
    def num_pending(self) -> int:
        return len(self._pending)

    @property
    def num_parked(self) -> int:
        return len(self._parked)

    # --- requests -------------------------------------------------------------------------------

    def accept(self, offer: Offer, terms: Terms, permit: Permit | None) -> list[Stream]:
        """Give the instance its requests, before anything else is accepted. One stream for each."""
        now = time.monotonic()
        deadline = now + terms.timeout_s if terms.timeout_s else None
        accepted = []
        self._idle.clear()
        for request, prefix, estimate in zip(offer.requests, offer.prefixes, offer.estimates, strict=True):
            stream = Stream(request.id, self._cancel, hold=not terms.streaming)
            pending = Pending(request, prefix, stream, Times(now, deadline), estimate, permit)
            self._pending[request.id] = pending
            accepted.append(pending)
        offer.submit(accepted)
        for pending in accepted:
            self._watch(pending)
        return [pending.stream for pending in accepted]

    def _cancel(self, request_id: str) -> None:
        """Let go of a request that its client does not want any more."""
        if (pending := self._pending.get(request_id)) is not None:
            self._let_go(pending)

    def _let_go(self, pending: Pending) -> None:
        pending.stop_timer()
        request_id = pending.request.id
        holder = next((each for each in self.instances if request_id in each.outstanding.pending), None)
        if holder is not None:
            holder.cancel(pending)  # it is over when the worker has let go
        else:
            self._parked.remove(pending)
            self._finish(pending)

    def _finish(self, pending: Pending, used_tokens: int = 0) -> None:
        """Forget a request: nothing will come of it any more."""
        del self._pending[pending.request.id]
        pending.end(used_tokens)
        if not self._pending:
            self._idle.set()
        self._on_change()

    # --- too late -------------------------------------------------------------------------------

    def _watch(self, pending: Pending) -> None:
        """Set the timer for the limit that comes next. Called where that may have changed."""
        pending.stop_timer()
        if pending.stream.ended or (due := next_limit(pending.times, self._timeouts)) is None:
            return
        loop = asyncio.get_running_loop()
        delay_s = max(0.0, due[0] - time.monotonic())
        pending.timer = loop.call_later(delay_s, self._check_time, pending)

    def _check_time(self, pending: Pending) -> None:
        pending.timer = None
        now = time.monotonic()
        due = next_limit(pending.times, self._timeouts)
        if due is None or due[0] > now:  # a token has moved it
            self._watch(pending)
            return
        limit = due[1]
        waited_s = now - pending.times.accepted_at
        self._observer.on_timeout(self._model, limit)
        pending.stream.fail(error_of(limit, waited_s, self.router.retry_after_s()))
        self._let_go(pending)

    # --- lost workers ---------------------------------------------------------------------------

    def _on_lost(self, name: str, lost: list[Pending]) -> None:
        for pending in sorted(lost, key=lambda pending: pending.times.accepted_at):
            again = pending.may_start_over
            self._observer.on_lost(self._model, name, pending.request, again)
            if again:
                pending.start_over()
                if not self._replace(pending):
                    self._park(pending)
            else:
                pending.stream.fail(
                    EngineError(
                        "the model's worker stopped while it computed this request", code="worker_lost"
                    )
                )
                self._finish(pending)

    def _replace(self, pending: Pending) -> bool:
        """Give it to another worker. False: none is up."""
        offer = self.router.replacement(pending)
        if offer is None:
            return False
        pending.times.parked_at = None
        (pending.estimate,) = offer.estimates
        offer.submit([pending])
        self._watch(pending)
        return True

    def _park(self, pending: Pending) -> None:
        pending.times.parked_at = time.monotonic()
        self._parked.append(pending)
        self._watch(pending)

    def _on_up(self) -> None:
        """Give a worker that is back what other workers lost."""
        parked, self._parked = self._parked, []
        self._parked += [pending for pending in parked if not self._replace(pending)]
        self._on_change()
