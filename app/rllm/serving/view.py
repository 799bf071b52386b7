"""What the pool looks like from outside. Views are made when somebody looks; times are monotonic."""

from __future__ import annotations

import msgspec

from rllm.backends.options import Fallback
from rllm.engine.snapshot import SequenceView
from rllm.engine.types import ComputePath


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """The time in which a request that is over held a sequence id."""

    seq: int
    request_id: str
    admitted_at: float
    first_token_at: float | None
    """None: it ended before its first token."""
    ended_at: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    finish: str
    """stop, length, cancelled, error or lost (with its worker)."""


class InstanceView(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    state: str
    reason: str
    """Why it is in this state, where that is worth a word."""
    breaker: str
    breaker_reopens_s: float
    """Seconds until the next request is tried, while the breaker is open."""
    restarts: int
    outstanding: int
    """Requests that were given to it and are not over."""
    fallback: Fallback | None = None
    """Options that it computes only with."""
    tuned: dict[str, str | int] = {}
    """Options that were measured to be fastest on this machine."""
    description: str = ""
    device: str = ""
    slots: int = 0
    num_sequences: int = 0
    ctx_per_slot: int = 0
    kv_cells: int = 0
    kv_bytes: int = 0
    kv_unified: bool = False
    compute: ComputePath = ComputePath()
    waiting: int = 0
    oldest_wait_s: float = 0.0
    kv_used: int = 0
    snapshot_age_s: float | None = None
    """Age of ``sequences`` and the counts before this. None: unknown. A worker answers between two steps."""
    sequences: tuple[SequenceView, ...] = ()
    spans: tuple[Span, ...] = ()
    """Requests that ended in the last minutes, or since the caller last looked; oldest first."""


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    degradation_level: int
    """0 is normal service."""
    degradation: str
    """What holds at this level."""
    smaller: str | None
    fallback: str | None
    parked: int
    """How many requests lost their worker and wait for another."""
    instances: tuple[InstanceView, ...]
