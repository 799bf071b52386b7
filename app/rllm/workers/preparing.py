"""Requests whose constraint is being compiled: they join the line once it is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from rllm.engine.constraint import Constraint, Preparation
from rllm.engine.engine import Engine
from rllm.engine.types import EngineRequest
from rllm.errors import ConstraintRefused

LOOK_AGAIN_S = 0.005
"""An idle worker waits so long at once: a command may come meanwhile."""


@dataclass(frozen=True, slots=True)
class _Pending:
    request: EngineRequest
    sent_at: float
    compiled: Preparation


class Preparing:
    """For the thread that owns the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._pending: dict[str, _Pending] = {}

    def __bool__(self) -> bool:
        return bool(self._pending)

    def submit(self, request: EngineRequest, constraint: Constraint, sent_at: float) -> None:
        self._pending[request.id] = _Pending(request, sent_at, self._engine.prepare(constraint))

    def cancel(self, request_id: str) -> None:
        """If it is here, it joins the line at once, where it can be cancelled as any other."""
        if (pending := self._pending.pop(request_id, None)) is not None:
            self._engine.submit(pending.request, pending.sent_at)

    def cancel_all(self) -> None:
        for request_id in list(self._pending):
            self.cancel(request_id)

    def release(self, *, wait_a_little: bool) -> None:
        """Hand on what is compiled."""
        if wait_a_little:
            with suppress(TimeoutError):
                next(iter(self._pending.values())).compiled.exception(LOOK_AGAIN_S)
        for request_id, pending in list(self._pending.items()):
            if pending.compiled.done():
                del self._pending[request_id]
                self._engine.submit(pending.request, pending.sent_at, _fault_of(pending.compiled))


def _fault_of(compiled: Preparation) -> str | None:
    error = compiled.exception()
    if error is None or isinstance(error, ConstraintRefused):
        return None if error is None else str(error)
    raise error
