"""A window into one instance: asks its worker what it is doing, only while somebody looks, and remembers who
held which sequence id lately.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from rllm.engine.snapshot import Snapshot
from rllm.engine.types import Event
from rllm.serving.flight import Flight
from rllm.serving.view import Span

FRESH_S = 0.2
"""A snapshot that is not older answers everybody: a worker is asked at most so often, however many watch."""
PATIENCE_S = 0.3
"""A long step delays the answer; then the last one must do."""
KEPT_SPANS = 512


class Window:
    """Lives on the event loop. ``ask`` sends an `Inspect` to the worker; `heard` gets the answer."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self.snapshot: Snapshot | None = None
        self._ask = ask
        self._answered: asyncio.Event | None = None
        self._spans: deque[Span] = deque(maxlen=KEPT_SPANS)

    async def refresh(self, now: float) -> None:
        """A snapshot as fresh as can be had soon. Never waits for a worker that does not answer."""
        if self.snapshot is not None and now - self.snapshot.taken_at < FRESH_S:
            return
        if self._answered is None:
            self._answered = asyncio.Event()
            self._ask()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._answered.wait(), PATIENCE_S)

    def heard(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._release()

    def closed(self) -> None:
        """The worker is gone, and what it held with it."""
        self.snapshot = None
        self._release()

    def _release(self) -> None:
        if self._answered is not None:
            self._answered.set()
            self._answered = None

    def spans(self, since: float) -> tuple[Span, ...]:
        return tuple(span for span in self._spans if span.ended_at > since)

    def ended(self, flight: Flight, event: Event, now: float) -> None:
        """Times are the worker's own where it told them; it is nearer to what happened."""
        usage, timings = event.usage, event.timings
        if flight.seq < 0 or usage is None or timings is None:
            return
        has_tokens = usage.completion_tokens > 0
        self._spans.append(
            Span(
                seq=flight.seq,
                request_id=flight.request.id,
                admitted_at=now - timings.decode_s - timings.prefill_s,
                first_token_at=now - timings.decode_s if has_tokens else None,
                ended_at=now,
                prompt_tokens=usage.prompt_tokens,
                cached_tokens=usage.cached_tokens,
                output_tokens=usage.completion_tokens,
                finish=str(event.finish),
            )
        )

    def lost(self, flight: Flight, now: float) -> None:
        if flight.seq < 0 or flight.times.started_at is None:
            return
        self._spans.append(
            Span(
                seq=flight.seq,
                request_id=flight.request.id,
                admitted_at=flight.times.started_at,
                first_token_at=flight.stream.first_token_at,
                ended_at=now,
                prompt_tokens=len(flight.request.prompt),
                cached_tokens=flight.cached_tokens,
                output_tokens=0,
                finish="lost",
            )
        )
