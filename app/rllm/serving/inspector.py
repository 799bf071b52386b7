"""What one instance is doing, asked of its worker only while somebody looks, and what it did lately."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

import msgspec

from rllm.engine.snapshot import Snapshot
from rllm.engine.types import Event, ModelInfo
from rllm.serving.pending import Pending
from rllm.serving.view import InstanceView, Span

FRESH_S = 0.2
"""A snapshot that is not older answers everybody: a worker is asked at most so often, however many watch."""
PATIENCE_S = 0.3
"""Seconds to wait for an answer, which a long step delays; then the last one must do."""
KEPT_SPANS = 512

_SHOWN = (
    "description",
    "device",
    "slots",
    "num_sequences",
    "ctx_per_slot",
    "kv_cells",
    "kv_bytes",
    "kv_unified",
    "compute",
)
"""Fields that a view takes over from `ModelInfo`."""


class Inspector:
    """Lives on the event loop. ``ask`` sends an `Inspect` to the worker; `heard` gets the answer."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._snapshot: Snapshot | None = None
        self._answered: asyncio.Event | None = None
        self._spans: deque[Span] = deque(maxlen=KEPT_SPANS)

    async def refresh(self, now: float) -> None:
        """Get a snapshot as fresh as can be had soon. Never waits for a worker that does not answer."""
        if self._snapshot is not None and now - self._snapshot.taken_at < FRESH_S:
            return
        if self._answered is None:
            self._answered = asyncio.Event()
            self._ask()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._answered.wait(), PATIENCE_S)

    def heard(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._release()

    def closed(self) -> None:
        """Forget the snapshot: the worker is gone, and what it held with it."""
        self._snapshot = None
        self._release()

    def _release(self) -> None:
        if self._answered is not None:
            self._answered.set()
            self._answered = None

    def complete(self, view: InstanceView, info: ModelInfo | None, since: float, now: float) -> InstanceView:
        """The view with what the worker has told. ``since``: only spans that ended later."""
        view = msgspec.structs.replace(view, spans=self._spans_since(since))
        if info is not None:
            shown = {name: getattr(info, name) for name in _SHOWN}
            view = msgspec.structs.replace(view, **shown)
        if (snapshot := self._snapshot) is not None:
            view = msgspec.structs.replace(
                view,
                waiting=snapshot.waiting,
                oldest_wait_s=snapshot.oldest_wait_s,
                kv_used=snapshot.kv_used,
                snapshot_age_s=max(0.0, now - snapshot.taken_at),
                sequences=snapshot.sequences,
            )
        return view

    def _spans_since(self, since: float) -> tuple[Span, ...]:
        return tuple(span for span in self._spans if span.ended_at > since)

    def ended(self, pending: Pending, event: Event, now: float) -> None:
        """Keep its span. Times are the worker's own where it told them; it is nearer to what happened."""
        usage, timings = event.usage, event.timings
        if pending.seq < 0 or usage is None or timings is None:
            return
        has_tokens = usage.completion_tokens > 0
        self._spans.append(
            Span(
                seq=pending.seq,
                request_id=pending.request.id,
                admitted_at=now - timings.decode_s - timings.prefill_s,
                first_token_at=now - timings.decode_s if has_tokens else None,
                ended_at=now,
                prompt_tokens=usage.prompt_tokens,
                cached_tokens=usage.cached_tokens,
                output_tokens=usage.completion_tokens,
                finish=str(event.finish),
            )
        )

    def lost(self, pending: Pending, now: float) -> None:
        """Keep the span of one whose worker is gone."""
        if pending.seq < 0 or pending.times.started_at is None:
            return
        self._spans.append(
            Span(
                seq=pending.seq,
                request_id=pending.request.id,
                admitted_at=pending.times.started_at,
                first_token_at=pending.stream.first_token_at,
                ended_at=now,
                prompt_tokens=len(pending.request.prompt),
                cached_tokens=pending.cached_tokens,
                output_tokens=0,
                finish="lost",
            )
        )
