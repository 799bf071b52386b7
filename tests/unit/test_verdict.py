"""One sentence about the server: which one is said for which state of things."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rllm.api.doors.live.live_state import Point
from rllm.engine.snapshot import Phase, SequenceView
from rllm.observe.verdict import Evidence, judge
from rllm.serving.service import Health
from rllm.serving.view import InstanceView, ModelView

READY = Health(True, "ok")
INSTANCE = InstanceView(
    name="q4-0",
    state="ready",
    reason="",
    breaker="closed",
    breaker_reopens_s=0.0,
    restarts=0,
    outstanding=0,
    slots=2,
    kv_cells=1000,
)
MODEL = ModelView(
    id="q4", degradation_level=0, degradation="", smaller=None, fallback=None, parked=0, instances=(INSTANCE,)
)


def sequences(*phases: Phase, tokens: int = 100) -> tuple[SequenceView, ...]:
    return tuple(
        SequenceView(seq=seq, phase=phase, computed_tokens=tokens) for seq, phase in enumerate(phases)
    )


def told(
    health: Health = READY,
    refused: int = 0,
    points: tuple[Point, ...] = (),
    model: Any = None,
    **instance: Any,
) -> tuple[str, str]:
    """(level, everything that is said)"""
    changed = msgspec.structs.replace(INSTANCE, **instance)
    models = (msgspec.structs.replace(MODEL, instances=(changed,), **(model or {})),)
    verdict = judge(Evidence(health, models, points, refused))
    return verdict.level, f"{verdict.headline} {verdict.detail}"


BUSY = sequences(Phase.DECODE, Phase.PREFILL)


@pytest.mark.parametrize(
    ("state", "level", "words"),
    [
        ({}, "idle", "Healthy and idle"),
        ({"sequences": BUSY}, "busy", "2 of 2 slots"),
        (
            {"sequences": BUSY, "waiting": 3, "oldest_wait_s": 1.25},
            "limited",
            "3 requests waiting, the first for",
        ),
        ({"sequences": BUSY[:1], "waiting": 1}, "busy", "1 request waiting for their prefill"),
        (
            {"sequences": sequences(Phase.DECODE, Phase.PREEMPTED)},
            "limited",
            "KV cache is the limit. 1 request",
        ),
        (
            {"sequences": BUSY[:1], "waiting": 1, "kv_unified": True, "kv_used": 990},
            "limited",
            "KV cache is the limit",
        ),
        (
            {"state": "restarting", "reason": "killed by signal 9"},
            "limited",
            "restarting: killed by signal 9",
        ),
        ({"breaker": "half_open"}, "limited", "circuit breaker is half-open"),
        ({"refused": 7}, "limited", "turned away. 7 in the last 10 s"),
        ({"health": Health(False, "loading")}, "limited", "Loading"),
        ({"health": Health(False, "draining")}, "limited", "Shutting down"),
        (
            {"health": Health(False, "no healthy instance"), "state": "failed", "reason": "no memory"},
            "bad",
            "q4-0 is failed: no memory",
        ),
        (
            {"model": {"degradation_level": 1, "degradation": "max_tokens<=64"}, "refused": 2},
            "limited",
            "q4: max_tokens<=64",
        ),
    ],
)
def test_what_is_said(state: dict[str, Any], level: str, words: str) -> None:
    said = told(**state)
    assert said[0] == level
    assert words in said[1]


def test_prefixes_that_nobody_uses_do_not_fill_the_cache() -> None:
    kept = sequences(Phase.DECODE, Phase.IDLE, Phase.IDLE, tokens=300)
    said = told(sequences=kept, waiting=1, kv_unified=True, kv_used=990)
    assert "KV cache" not in said[1]


def test_a_server_that_mostly_reads_prompts_says_so() -> None:
    points = (Point(t=1, busy_s=0.9, prefill_s=0.8), Point(t=2, busy_s=1.0, prefill_s=0.6))
    assert "74% of the time is prefill" in told(points=points, sequences=BUSY)[1]
    assert "prefill" not in told(points=(Point(t=1, busy_s=1.0, prefill_s=0.1),), sequences=BUSY)[1]
