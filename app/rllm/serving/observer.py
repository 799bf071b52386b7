"""What the serving layer reports about itself. Metrics and logs are implementations; none is required.

Every method is called on the event loop and must return quickly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum

from rllm.backends.options import Fallback
from rllm.engine.types import EngineRequest, Event, ModelInfo, StepRecord
from rllm.serving.breaker import BreakerState
from rllm.serving.timeouts import Limit


class InstanceState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    """Its worker is gone; another one starts after a pause."""
    FAILED = "failed"
    """It could not be started; nobody tries again."""
    STOPPED = "stopped"


class Observer:
    """Does nothing: override what is of interest. ``model`` is the served name, ``instance`` the worker's."""

    def on_instance(self, model: str, instance: str, state: InstanceState, reason: str) -> None:
        """An instance changed its state."""

    def on_ready(self, model: str, instance: str, info: ModelInfo, pid: int) -> None:
        """A worker has loaded its model."""

    def on_step(self, model: str, instance: str, record: StepRecord) -> None:
        """A worker has computed a step."""

    def on_accepted(self, model: str, instance: str, request: EngineRequest) -> None:
        """A sequence was handed to an instance."""

    def on_started(self, model: str, instance: str, request: EngineRequest) -> None:
        """A sequence was given a slot, for the first time since it was accepted."""

    def on_rejected(self, model: str, reason: str, bound: str) -> None:
        """A request was refused at the door; ``reason`` is an error code, ``bound`` the limit behind it."""

    def on_first_token(self, model: str, instance: str, seconds: float) -> None:
        """A sequence has its first token, so many seconds after it was accepted."""

    def on_token_gap(self, model: str, instance: str, seconds: float) -> None:
        """A sequence has further tokens, so many seconds after the last ones."""

    def on_finished(
        self, model: str, instance: str, request: EngineRequest, event: Event, seconds: float
    ) -> None:
        """A sequence is over; ``event`` is its last one, ``seconds`` the time since it was accepted."""

    def on_lost(self, model: str, instance: str, request: EngineRequest, retried: bool) -> None:
        """An instance lost its worker and with it this sequence. ``retried``: another attempt follows."""

    def on_timeout(self, model: str, limit: Limit) -> None:
        """A sequence was ended because a time limit was passed."""

    def on_start_failed(self, model: str, instance: str, reason: str) -> None:
        """A worker that was lost could not be replaced; it is tried again after a pause."""

    def on_stall(self, model: str, instance: str, seconds: float) -> None:
        """A worker had work and made no step for so long; it is being killed."""

    def on_fewer_slots(self, model: str, instance: str, before: int, after: int) -> None:
        """Memory ran out, and an instance goes on with fewer slots."""

    def on_crash_at_start(self, model: str, instance: str, way: str, reason: str) -> None:
        """A worker crashed or miscomputed before it was ready; ``way``: the settings it was started with."""

    def on_fallback(self, model: str, instance: str, fallback: Fallback) -> None:
        """An instance computes only with options that nobody asked for, and goes on with them."""

    def on_not_served(self, model: str, reason: str) -> None:
        """A model could not be started; the server goes on without it."""

    def on_breaker(self, model: str, instance: str, state: BreakerState) -> None:
        """An instance's circuit breaker changed its state."""

    def on_degraded(self, model: str, level: int, measures: str) -> None:
        """A model's level on the degradation ladder changed; 0 is normal service."""

    def on_rerouted(self, model: str, to: str, reason: str) -> None:
        """A request was given to another model: ``degraded`` or ``fallback``."""

    def on_log(self, instance: str, level: str, text: str, sequences: Sequence[str]) -> None:
        """A line of a worker's log, and the sequences that it is about or that were being computed."""


class Observers(Observer):
    """Passes everything on to several. An observer is called only for what it overrides."""

    def __init__(self, *observers: Observer) -> None:
        for name, nothing in vars(Observer).items():
            if name.startswith("on_"):
                listeners = [
                    getattr(observer, name)
                    for observer in observers
                    if getattr(type(observer), name) is not nothing
                ]
                if listeners:
                    setattr(self, name, listeners[0] if len(listeners) == 1 else _Each(listeners))


class _Each:
    """Calls one method of several observers, in order."""

    def __init__(self, listeners: Sequence[Callable[..., None]]) -> None:
        self._listeners = listeners

    def __call__(self, *arguments: object) -> None:
        for listen in self._listeners:
            listen(*arguments)
