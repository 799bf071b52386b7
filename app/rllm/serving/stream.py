"""A sequence's answer on its way to a client: a mailbox on the event loop, no thread, no bounded queue.

A slow reader finds larger pieces in its mailbox, not a longer queue. The mailbox outlives the worker that
fills it: as long as the reader has taken nothing, the answer may start over somewhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rllm.engine.types import Event
from rllm.errors import RllmError


class Stream:
    """The pool fills it, one consumer reads it. It ends after an event with ``finish``, or with an error."""

    def __init__(self, request_id: str, cancel: Callable[[str], None], *, hold: bool = False) -> None:
        """With ``hold`` the reader gets everything at once, at the end."""
        self.request_id = request_id
        self.first_token_at: float | None = None
        """Monotonic time of the first token that the reader gets."""
        self._cancel = cancel
        self._hold = hold
        self._events: list[Event] = []
        self._error: RllmError | None = None
        self._reader: asyncio.Future[None] | None = None
        """It is set while the consumer waits."""
        self._ended = False
        self._was_read = False

    @property
    def ended(self) -> bool:
        """No further event will arrive."""
        return self._ended

    @property
    def was_read(self) -> bool:
        """The reader has taken a part of the answer, which cannot be unsaid."""
        return self._was_read

    def put(self, event: Event, now: float) -> None:
        """``now``: when it arrived, on the monotonic clock."""
        if self._ended:
            return
        if event.tokens and self.first_token_at is None:
            self.first_token_at = now
        self._events.append(event)
        self._ended = event.finish is not None
        self._wake()

    def start_over(self) -> None:
        """Forget what has come: the whole answer will come again. Only before anything `was_read`."""
        if self._was_read:
            raise RuntimeError(f"request {self.request_id}: its reader has seen a part of the answer")
        self._events.clear()
        self.first_token_at = None

    def fail(self, error: RllmError) -> None:
        """End with an error, after what has come before."""
        if self._ended:
            return
        if self._hold:
            self._events.clear()
        self._error = error
        self._ended = True
        self._wake()

    def cancel(self) -> None:
        """Stop computing. Safe to call at any time, also after the end."""
        if not self._ended:
            self._ended = True
            self._cancel(self.request_id)
            self._wake()

    @property
    def _has_news(self) -> bool:
        return self._ended or (bool(self._events) and not self._hold)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done() and self._has_news:
            self._reader.set_result(None)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> list[Event]:
        """All events since the last call, at least one.

        Raises:
            RllmError: the request ended without a result.
            StopAsyncIteration: the last event was delivered before.
        """
        while not self._has_news:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        events, self._events = self._events, []
        if events:
            self._was_read = True
            return events
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopAsyncIteration
