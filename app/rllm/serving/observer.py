"""What the serving layer reports about itself. Metrics and logs are implementations; none is required.

Every method is called on the event loop and must return quickly.
"""

from __future__ import annotations

from enum import StrEnum

from rllm.engine.types import EngineRequest, Event, ModelInfo, StepRecord


class InstanceState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    """Its worker is gone; another one starts after a pause."""
    FAILED = "failed"
    """Could not be started; nobody tries again."""
    STOPPED = "stopped"


class Observer:
    """Does nothing; override what is of interest. ``model`` is the served name, ``instance`` the worker's."""

    def on_instance(self, model: str, instance: str, state: InstanceState, reason: str) -> None:
        """An instance changed its state."""

    def on_ready(self, model: str, instance: str, info: ModelInfo, pid: int) -> None:
        """A worker has loaded its model."""

    def on_step(self, model: str, instance: str, record: StepRecord) -> None:
        """A worker has computed a step."""

    def on_accepted(self, model: str, instance: str, request: EngineRequest) -> None:
        """A sequence was handed to an instance."""

    def on_rejected(self, model: str, reason: str) -> None:
        """A request was refused at the door; ``reason`` is an error code."""

    def on_first_token(self, model: str, instance: str, seconds: float) -> None:
        """Time from acceptance to the first token of one sequence."""

    def on_token_gap(self, model: str, instance: str, seconds: float) -> None:
        """Time between two steps that brought tokens for the same sequence."""

    def on_finished(
        self, model: str, instance: str, request: EngineRequest, event: Event, seconds: float
    ) -> None:
        """A sequence is over; ``event`` is its last one, ``seconds`` its whole time since acceptance."""

    def on_log(self, instance: str, level: str, text: str, request_id: str | None) -> None:
        """A line of a worker's log."""


class Observers(Observer):
    """Passes everything on to several."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def on_instance(self, model: str, instance: str, state: InstanceState, reason: str) -> None:
        for observer in self._observers:
            observer.on_instance(model, instance, state, reason)

    def on_ready(self, model: str, instance: str, info: ModelInfo, pid: int) -> None:
        for observer in self._observers:
            observer.on_ready(model, instance, info, pid)

    def on_step(self, model: str, instance: str, record: StepRecord) -> None:
        for observer in self._observers:
            observer.on_step(model, instance, record)

    def on_accepted(self, model: str, instance: str, request: EngineRequest) -> None:
        for observer in self._observers:
            observer.on_accepted(model, instance, request)

    def on_rejected(self, model: str, reason: str) -> None:
        for observer in self._observers:
            observer.on_rejected(model, reason)

    def on_first_token(self, model: str, instance: str, seconds: float) -> None:
        for observer in self._observers:
            observer.on_first_token(model, instance, seconds)

    def on_token_gap(self, model: str, instance: str, seconds: float) -> None:
        for observer in self._observers:
            observer.on_token_gap(model, instance, seconds)

    def on_finished(
        self, model: str, instance: str, request: EngineRequest, event: Event, seconds: float
    ) -> None:
        for observer in self._observers:
            observer.on_finished(model, instance, request, event, seconds)

    def on_log(self, instance: str, level: str, text: str, request_id: str | None) -> None:
        for observer in self._observers:
            observer.on_log(instance, level, text, request_id)
