"""A state of the server with something in every field, for the endpoint that shows it."""

from __future__ import annotations

from rllm.api.doors.live.live_state import Card, LiveState, Point, Verdict
from rllm.engine.snapshot import Phase, SequenceView
from rllm.serving.view import InstanceView, ModelView, Span

NOW = 1000.0

DECODING = SequenceView(
    seq=0,
    phase=Phase.DECODE,
    computed_tokens=40,
    request_id="req-a.b.0",
    prompt_tokens=30,
    cached_tokens=20,
    output_tokens=11,
    max_tokens=64,
    admitted_at=NOW - 2,
    first_token_at=NOW - 1,
)
KEPT = SequenceView(seq=1, phase=Phase.IDLE, computed_tokens=25)
OVER = Span(
    seq=1,
    request_id="req-c.d.0",
    admitted_at=NOW - 9,
    first_token_at=NOW - 8,
    ended_at=NOW - 5,
    prompt_tokens=20,
    cached_tokens=0,
    output_tokens=6,
    finish="stop",
)
INSTANCE = InstanceView(
    name="fake-0",
    state="ready",
    reason="",
    breaker="closed",
    breaker_reopens_s=0.0,
    restarts=1,
    outstanding=1,
    slots=4,
    kv_cells=2048,
    kv_used=65,
    snapshot_age_s=0.01,
    sequences=(DECODING, KEPT),
    spans=(OVER,),
)
MODEL = ModelView(
    id="fake",
    degradation_level=0,
    degradation="",
    smaller=None,
    fallback=None,
    parked=0,
    instances=(INSTANCE,),
)

CARD = Card(
    index=0,
    name="H100",
    memory_used_bytes=1,
    memory_total_bytes=None,
    utilization_ratio=0.5,
    power_w=300.0,
    temperature_c=None,
)


async def views() -> tuple[ModelView, ...]:
    return (MODEL,)


async def look(since: float) -> LiveState:
    points = tuple(Point(t=t, decode_tokens=t, running=1) for t in (998, 999) if t > since - 1)
    return LiveState(
        version="0",
        time=NOW,
        uptime_s=60.0,
        ready=True,
        verdict=Verdict("busy", "Healthy and busy.", "1 of 4 slots in use."),
        models=(MODEL,),
        history={"": points, "fake": points},
        minute={"": Point(t=1000)},
        rejections={"queue_full": 2},
        gpus=(CARD,),
    )
