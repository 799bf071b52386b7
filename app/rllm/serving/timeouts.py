"""Says which of a request's time limits comes next. Times are numbers on one monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rllm.errors import EngineError, Overloaded, RllmError, TimedOut
from rllm.settings.limits import Timeouts


class Limit(StrEnum):
    """A limit that can be passed. Its value is the error code that the client gets."""

    QUEUE = "queue_timeout"
    FIRST_TOKEN = "first_token_timeout"
    TOTAL = "request_timeout"
    DEADLINE = "deadline_exceeded"
    IDLE = "stream_idle_timeout"
    RETRY = "worker_lost"


@dataclass(slots=True)
class Times:
    """When things happened to one request."""

    accepted_at: float
    deadline: float | None = None
    """The caller's own limit."""
    started_at: float | None = None
    """It was given a slot."""
    last_token_at: float | None = None
    parked_at: float | None = None
    """It lost its worker and waits for another."""


def next_limit(times: Times, timeouts: Timeouts) -> tuple[float, Limit] | None:
    """The limit that will be passed first if nothing happens, and when."""
    due: list[tuple[float, Limit]] = []
    if times.deadline is not None:
        due.append((times.deadline, Limit.DEADLINE))
    if timeouts.total_s:
        due.append((times.accepted_at + timeouts.total_s, Limit.TOTAL))
    # One phase at a time: without a worker no token can come, and after the first one the gap is what counts.
    if times.parked_at is not None:
        if timeouts.retry_s:
            due.append((times.parked_at + timeouts.retry_s, Limit.RETRY))
    elif times.last_token_at is not None:
        if timeouts.idle_s:
            due.append((times.last_token_at + timeouts.idle_s, Limit.IDLE))
    else:
        if timeouts.first_token_s:
            due.append((times.accepted_at + timeouts.first_token_s, Limit.FIRST_TOKEN))
        if timeouts.queue_s and times.started_at is None:
            due.append((times.accepted_at + timeouts.queue_s, Limit.QUEUE))
    return min(due, default=None)


def error_of(limit: Limit, waited_s: float, retry_after_s: float) -> RllmError:
    """The error for a passed limit. The client is told to come back only where nothing was computed."""
    match limit:
        case Limit.QUEUE:
            return Overloaded(
                f"no slot became free within {waited_s:.1f} s",
                code=limit.value,
                retry_after_s=retry_after_s,
            )
        case Limit.RETRY:
            return EngineError("the model's worker stopped and was not replaced in time", code=limit.value)
        case Limit.FIRST_TOKEN:
            message = f"no token was produced within {waited_s:.1f} s"
        case Limit.IDLE:
            message = "the stream stood still for too long"
        case Limit.TOTAL:
            message = f"the request was not complete after {waited_s:.1f} s, the server's limit"
        case Limit.DEADLINE:
            message = f"the request was not complete after {waited_s:.1f} s, its own deadline"
    return TimedOut(message, code=limit.value)
