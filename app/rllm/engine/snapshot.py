"""What every sequence is doing at one moment. Taken between steps, when somebody outside asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum

import msgspec

from rllm.engine.sequence import Sequence, State


class Phase(StrEnum):
    PREFILL = "prefill"
    """Its prompt is being computed (again, after it was preempted)."""
    DECODE = "decode"
    PREEMPTED = "preempted"
    """Keeps its sequence id and waits for cells."""
    IDLE = "idle"
    """Nobody's: the prefix of a finished request, kept because it may be reused."""


class SequenceView(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence id that is not empty. Times are on the monotonic clock."""

    seq: int
    phase: Phase
    computed_tokens: int
    """Tokens that have cells."""
    request_id: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt, found resident and not computed."""
    output_tokens: int = 0
    max_tokens: int = 0
    admitted_at: float | None = None
    first_token_at: float | None = None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    taken_at: float
    sequences: tuple[SequenceView, ...]
    """In the order of their ids."""
    waiting: int
    """Requests without a sequence id; preempted ones have one."""
    oldest_wait_s: float
    kv_used: int


def take(requests: Iterable[Sequence], idle: Iterable[tuple[int, int]], kv_used: int, now: float) -> Snapshot:
    """``idle``: (sequence id, length) of every prefix that nobody uses."""
    placed: list[SequenceView] = []
    waiting: list[float] = []
    for sequence in requests:
        if sequence.seq >= 0:
            placed.append(_view(sequence))
        else:
            waiting.append(now - sequence.clock.arrived_at)
    placed.extend(_kept(idle))
    placed.sort(key=lambda view: view.seq)
    return Snapshot(
        taken_at=now,
        sequences=tuple(placed),
        waiting=len(waiting),
        oldest_wait_s=max(waiting, default=0.0),
        kv_used=kv_used,
    )


_PHASES = {State.PREFILLING: Phase.PREFILL, State.DECODING: Phase.DECODE, State.WAITING: Phase.PREEMPTED}


def _view(sequence: Sequence) -> SequenceView:
    return SequenceView(
        seq=sequence.seq,
        phase=_PHASES[sequence.state],
        computed_tokens=sequence.computed,
        request_id=sequence.request.id,
        prompt_tokens=len(sequence.request.prompt),
        cached_tokens=sequence.cached_tokens,
        output_tokens=sequence.num_output,
        max_tokens=sequence.request.max_tokens,
        admitted_at=sequence.clock.admitted_at,
        first_token_at=sequence.clock.first_token_at,
    )


def _kept(idle: Iterable[tuple[int, int]]) -> Iterator[SequenceView]:
    for seq, length in idle:
        yield SequenceView(seq=seq, phase=Phase.IDLE, computed_tokens=length)
