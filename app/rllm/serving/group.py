"""The instances of one model: who gets a flight, what ends one too late, and what follows a lost worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from rllm.engine.types import EngineRequest, ModelInfo
from rllm.errors import EngineError, Overloaded, RllmError
from rllm.serving.admission import MAX_RETRY_S, Limits, check_load, retry_after_s, tightest
from rllm.serving.dispatcher import choose
from rllm.serving.flight import Flight
from rllm.serving.instance import Hooks, Instance, InstanceSettings
from rllm.serving.observer import Observer
from rllm.serving.rates import Refusals
from rllm.serving.terms import Terms
from rllm.serving.timeouts import Timeouts, error_of, next_limit
from rllm.workers.frames import WorkerSpec


class Group:
    """Owns the model's flights from `launch` until they are over."""

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
        """``on_change`` hears of every flight that came, started or ended."""
        self.model = model
        self._observer = observer
        self._limits = limits
        self._timeouts = timeouts
        self._on_change = on_change
        hooks = Hooks(
            on_up=self._on_up,
            on_started=self._watch,
            on_token=self._watch,
            on_over=self._on_over,
            on_lost=self._on_lost,
        )
        self.instances = [Instance(model, spec, observer, settings, hooks) for spec in specs]
        self._parked: list[Flight] = []
        self._refusals = Refusals()
        self._flights: dict[str, Flight] = {}
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
        """Whoever still waits hears ``reason``; then the workers end."""
        for flight in list(self._flights.values()):
            flight.stream.fail(reason)
        await asyncio.gather(*(instance.stop() for instance in self.instances))
        for flight in list(self._flights.values()):
            self._finish(flight)

    # --- the state of things --------------------------------------------------------------------

    @property
    def is_available(self) -> bool:
        """Some instance would take a request now."""
        now = time.monotonic()
        return any(instance.is_open_to(now) for instance in self.instances)

    @property
    def utilization(self) -> float:
        """Flights per slot of the instances that are up; with none up, as many slots as one would have."""
        ready = [instance.load.slots for instance in self.instances if instance.is_ready]
        one = next((instance.load.slots for instance in self.instances if instance.info), 1)
        return len(self._flights) / (sum(ready) or one)

    @property
    def num_parked(self) -> int:
        """Lost their worker and wait for another."""
        return len(self._parked)

    def back_in_s(self) -> float:
        """When to ask again, while no instance takes requests."""
        now = time.monotonic()
        waits = [
            instance.breaker.reopens_in_s(now) if instance.is_ready else 2.0 for instance in self.instances
        ]
        return max(0.5, min(waits))

    # --- flights --------------------------------------------------------------------------------

    def choose(self, requests: Sequence[EngineRequest], terms: Terms) -> Instance:
        """The instance that all of ``requests`` may be given to now.

        Raises:
            Overloaded: there is none, or it has too much to do.
        """
        instance = self._best(requests[0])
        if instance is None:
            raise self._nobody()
        uncached = sum(len(r.prompt) for r in requests) - instance.candidate(requests[0]).resident_tokens
        try:
            check_load(instance.load, self._limits, len(requests), uncached, self._patience_s(terms))
        except Overloaded as error:
            self._spread(error)
            raise
        return instance

    def check_open(self, num_requests: int, terms: Terms) -> None:
        """Could so many requests be given to some instance now, if their prompts were as short as can be?

        Raises:
            Overloaded: `choose` would refuse them, whatever their prompts are.
        """
        now, patience_s = time.monotonic(), self._patience_s(terms)
        refusals: list[Overloaded] = []
        for instance in self.instances:
            if not instance.is_open_to(now):
                continue
            try:
                check_load(instance.load, self._limits, num_requests, 0, patience_s)
            except Overloaded as error:
                refusals.append(error)
            else:
                return
        if not refusals:
            raise self._nobody()
        self._spread(refusals[0])
        raise refusals[0]

    def _nobody(self) -> Overloaded:
        return Overloaded(
            f"no instance of {self.model} takes requests at the moment",
            retry_after_s=self.back_in_s(),
            bound="no_instance",
        )

    def _patience_s(self, terms: Terms) -> float | None:
        """The longest that a first token may take."""
        timeouts = self._timeouts
        return tightest(
            terms.ttft_s,
            terms.timeout_s,
            self._limits.target_ttft_s,
            timeouts.first_token_s,
            timeouts.total_s,
        )

    def _spread(self, error: Overloaded) -> None:
        """The newcomer's turn comes after those who were sent away before him."""
        now = time.monotonic()
        gaps = [gap for i in self.instances if i.info and (gap := i.gap_s) is not None]
        if gaps and error.retry_after_s is not None:
            behind_s = self._refusals.count(now) * min(gaps) / len(gaps)
            error.retry_after_s = min(MAX_RETRY_S, error.retry_after_s + behind_s)
        self._refusals.add(now)

    def _best(self, request: EngineRequest) -> Instance | None:
        now = time.monotonic()
        open_ = [instance for instance in self.instances if instance.is_open_to(now)]
        if not open_:
            return None
        candidates = [instance.candidate(request) for instance in open_]
        return open_[choose(candidates, len(request.prompt), slack_tokens=2 * len(request.prompt))]

    def retry_after_s(self, num_requests: int) -> float:
        known = [instance.load for instance in self.instances if instance.info is not None]
        return min((retry_after_s(load, num_requests) for load in known), default=1.0)

    def launch(self, flight: Flight, instance: Instance) -> None:
        self._flights[flight.request.id] = flight
        self._idle.clear()
        instance.submit(flight)
        self._watch(flight)

    def cancel(self, request_id: str) -> None:
        """The client does not want it any more."""
        if (flight := self._flights.get(request_id)) is not None:
            self._let_go(flight)

    def _let_go(self, flight: Flight) -> None:
        flight.stop_timer()
        if flight.instance is not None:
            flight.instance.cancel(flight)
        else:
            self._parked.remove(flight)
            self._finish(flight)

    def _on_over(self, flight: Flight) -> None:
        """Its worker has answered and let go."""
        self._finish(flight)

    def _finish(self, flight: Flight) -> None:
        flight.close(0)
        if self._flights.pop(flight.request.id, None) is not None and not self._flights:
            self._idle.set()
        self._on_change()

    # --- too late -------------------------------------------------------------------------------

    def _watch(self, flight: Flight) -> None:
        """Set the timer for the limit that comes next. Called where that may have changed."""
        flight.stop_timer()
        if flight.stream.ended or (due := next_limit(flight.times, self._timeouts)) is None:
            return
        loop = asyncio.get_running_loop()
        delay_s = max(0.0, due[0] - time.monotonic())
        flight.timer = loop.call_later(delay_s, self._check_time, flight)

    def _check_time(self, flight: Flight) -> None:
        flight.timer = None
        now = time.monotonic()
        due = next_limit(flight.times, self._timeouts)
        if due is None or due[0] > now:  # a token has moved it
            self._watch(flight)
            return
        limit = due[1]
        waited_s = now - flight.times.accepted_at
        self._observer.on_timeout(self.model, limit)
        flight.stream.fail(error_of(limit, waited_s, self.retry_after_s(1)))
        self._let_go(flight)

    # --- lost workers ---------------------------------------------------------------------------

    def _on_lost(self, name: str, flights: list[Flight]) -> None:
        for flight in sorted(flights, key=lambda flight: flight.times.accepted_at):
            again = flight.may_start_over
            self._observer.on_lost(self.model, name, flight.request, again)
            if again:
                self._start_over(flight)
            else:
                flight.stream.fail(
                    EngineError(
                        "the model's worker stopped while it computed this request", code="worker_lost"
                    )
                )
                self._finish(flight)

    def _start_over(self, flight: Flight) -> None:
        flight.stream.start_over()
        times = flight.times
        times.started_at = times.last_token_at = None
        flight.output_tokens = 0
        instance = self._heir(flight.request)
        if instance is not None:
            self.launch(flight, instance)
            return
        times.parked_at = time.monotonic()
        self._parked.append(flight)
        self._watch(flight)

    def _heir(self, request: EngineRequest) -> Instance | None:
        """Who takes what a lost worker had. None: no worker is up.

        Rather one whose breaker is open than none: the request was accepted, its client waits, and a second
        attempt is its last.
        """
        ready = (instance for instance in self.instances if instance.is_ready)
        return self._best(request) or min(ready, key=lambda each: each.num_outstanding, default=None)

    def _on_up(self) -> None:
        """A worker is back: whoever lost one goes first."""
        parked, self._parked = self._parked, []
        for flight in parked:
            instance = self._heir(flight.request)
            if instance is None:
                self._parked.append(flight)
                continue
            flight.times.parked_at = None
            self.launch(flight, instance)
        self._on_change()
