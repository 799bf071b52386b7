"""GET /v1/rllm/state: everything the live page shows. Times are seconds on the server's monotonic clock."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from rllm.serving.view import ModelView


class Verdict(msgspec.Struct, frozen=True):
    """The state of the server in one sentence, by the same rules as RUNBOOK.md."""

    level: Literal["idle", "busy", "limited", "bad"]
    """limited: users wait or get less than they asked for. bad: some get nothing."""
    headline: str
    detail: str = ""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One second in which something happened; one without a point had no tokens and the last gauges."""

    t: int
    decode_tokens: int = 0
    prefill_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens found resident."""
    steps: int = 0
    busy_s: float = 0.0
    """Time in steps; with several instances their sum."""
    prefill_s: float = 0.0
    """Of it, in steps that computed prompts."""
    running: int = 0
    waiting: int = 0
    kv_used: int = 0
    preemptions: int = 0
    ttft_p50_s: float | None = None
    """From acceptance to the first token. Quantiles are exact to 5 %."""
    ttft_p95_s: float | None = None
    itl_p50_s: float | None = None
    itl_p99_s: float | None = None


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU; null where it does not tell."""

    index: int
    name: str
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    utilization_ratio: float | None
    power_w: float | None
    temperature_c: float | None


class LiveState(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    time: float
    uptime_s: float
    ready: bool
    verdict: Verdict
    models: tuple[ModelView, ...]
    history: dict[str, tuple[Point, ...]]
    """By model, and "" for all of them together."""
    minute: dict[str, Point]
    """The last 60 s as one point; its quantiles are those of the whole minute."""
    rejections: dict[str, int]
    """Requests turned away since the start, by error code and the limit behind it."""
    gpus: tuple[Card, ...]


def schemas() -> dict[str, Any]:
    """For the OpenAPI document."""
    _, components = msgspec.json.schema_components([LiveState], ref_template="#/components/schemas/{name}")
    return dict(components)
