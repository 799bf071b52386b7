"""One request's answers on their way to a client: a mailbox on the event loop, no thread, no bounded queue.

A slow reader finds larger pieces in its mailbox, not a longer queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rllm.engine.types import Event
from rllm.errors import RllmError


class Stream:
    """Filled by the pool, read by one consumer. Ends after an event with ``finish``, or with an error."""

    def __init__(self, request_id: str, cancel: Callable[[str], None]) -> None:
        self.request_id = request_id
        self._cancel = cancel
        self._events: list[Event] = []
        self._error: RllmError | None = None
        self._wake = asyncio.Event()
        self._ended = False

    @property
    def ended(self) -> bool:
        """No further event will arrive."""
        return self._ended

    def put(self, event: Event) -> None:
        if self._ended:
            return
        self._events.append(event)
        self._ended = event.finish is not None
        self._wake.set()

    def fail(self, error: RllmError) -> None:
        if self._ended:
            return
        self._error = error
        self._ended = True
        self._wake.set()

    def cancel(self) -> None:
        """Stop computing. Safe to call at any time, also after the end."""
        if not self._ended:
            self._ended = True
            self._cancel(self.request_id)
            self._wake.set()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> list[Event]:
        """All events since the last call, at least one.

        Raises:
            RllmError: the request ended without a result.
            StopAsyncIteration: the last event was delivered before.
        """
        await self._wake.wait()
        events, self._events = self._events, []
        if not self._ended:
            self._wake.clear()
        if events:
            return events
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopAsyncIteration
