"""Brings together what HTTP knows of a request and what its sequences reported.

The two end at different times: a client that goes away ends its HTTP request at once, and the worker lets
go of the sequence with its next step. Whoever tells of a request as a whole hears of it when both are over,
or when a worker that stands still has kept it waiting for long enough.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from rllm.api.http.records import RequestRecord
from rllm.engine.types import EngineRequest, Event, FinishReason, Timings, Usage
from rllm.serving.observer import Observer

PATIENCE_S = 5.0
"""How long a request that HTTP is done with waits for its worker. Looked at when the next request is over."""
_MAX_OPEN = 10_000


@dataclass(frozen=True, slots=True)
class SequenceEnd:
    """One sequence as the worker that answered for it reported it."""

    instance: str
    accepted_at: float
    """On the monotonic clock, like the times of the record."""
    finish: FinishReason | None = None
    """None: its worker did not say; it was lost, or stood still."""
    error: str | None = None
    usage: Usage | None = None
    timings: Timings | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """A request from its arrival to the moment when nobody works on it any more."""

    record: RequestRecord
    sequences: tuple[SequenceEnd, ...] = ()
    num_lost: int = 0
    """How often one of its sequences lost its worker."""

    @property
    def finish_reasons(self) -> tuple[str, ...]:
        if self._was_answered:
            return self.record.finish_reasons
        return tuple(end.finish or "unanswered" for end in self.sequences)

    @property
    def output_tokens(self) -> int:
        """Those that were generated, also where nobody was there any more to receive them."""
        if self._was_answered:
            return self.record.completion_tokens
        return sum(end.usage.completion_tokens for end in self.sequences if end.usage is not None)

    @property
    def cached_tokens(self) -> int:
        if self._was_answered:
            return self.record.cached_tokens
        return min((end.usage.cached_tokens for end in self.sequences if end.usage is not None), default=0)

    @property
    def _was_answered(self) -> bool:
        """Every choice to its end: then HTTP knows best, as it counts a prompt of several choices once."""
        return len(self.record.finish_reasons) == self.record.num_choices


Listener = Callable[[Story], None]


@dataclass(slots=True)
class _Open:
    running: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Instance and time of acceptance, by sequence id."""
    ended: list[SequenceEnd] = field(default_factory=list)
    num_lost: int = 0
    record: RequestRecord | None = None


class Joiner(Observer):
    """Calls every listener once for each HTTP request."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners
        self._open: dict[str, _Open] = {}
        self._late: deque[tuple[float, str]] = deque()
        """Requests that wait for their workers, and since when."""

    def on_request(self, record: RequestRecord) -> None:
        """HTTP is done with it."""
        now = time.monotonic()
        self._lose_patience(now - PATIENCE_S)
        key = "" if record.response_id is None else f"{record.request_id}.{record.response_id[-8:]}"
        story = self._open.get(key)
        if story is None:
            self._tell(Story(record))
            return
        story.record = record
        if not self._tell_if_over(key, story):
            self._late.append((now, key))

    def _lose_patience(self, before: float) -> None:
        while self._late and self._late[0][0] <= before:
            _, key = self._late.popleft()
            if (story := self._open.get(key)) is not None:
                story.ended += [SequenceEnd(*begun) for begun in story.running.values()]
                story.running.clear()
                self._tell_if_over(key, story)

    def on_accepted(self, model: str, instance: str, request: EngineRequest) -> None:
        if len(self._open) >= _MAX_OPEN:  # sequences that no HTTP request belongs to would stay for ever
            del self._open[next(iter(self._open))]
        story = self._open.setdefault(key_of(request.id), _Open())
        story.running[request.id] = (instance, time.monotonic())

    def on_finished(
        self, model: str, instance: str, request: EngineRequest, event: Event, seconds: float
    ) -> None:
        key = key_of(request.id)
        story = self._open.get(key)
        if story is None or (begun := story.running.pop(request.id, None)) is None:
            return
        end = SequenceEnd(instance, begun[1], event.finish, event.error, event.usage, event.timings)
        story.ended.append(end)
        self._tell_if_over(key, story)

    def on_lost(self, model: str, instance: str, request: EngineRequest, retried: bool) -> None:
        key = key_of(request.id)
        story = self._open.get(key)
        if story is None or (begun := story.running.pop(request.id, None)) is None:
            return
        story.num_lost += 1
        if not retried:
            story.ended.append(SequenceEnd(instance, begun[1]))
            self._tell_if_over(key, story)

    def _tell_if_over(self, key: str, story: _Open) -> bool:
        if story.record is None or story.running:
            return False
        del self._open[key]
        self._tell(Story(story.record, tuple(story.ended), story.num_lost))
        return True

    def _tell(self, story: Story) -> None:
        for listener in self._listeners:
            listener(story)


def key_of(sequence: str) -> str:
    """What the sequences of one HTTP request have in common."""
    return sequence.rpartition(".")[0]


def request_id_of(sequence: str) -> str:
    """The x-request-id that a sequence belongs to; see `rllm.api.answer.job`."""
    return sequence.rsplit(".", 2)[0]
