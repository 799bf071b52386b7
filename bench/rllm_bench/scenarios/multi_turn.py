"""Conversations: every turn repeats those before it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rllm_bench.load.prompts import Unit, Words
from rllm_bench.records.cells import RequestRecord, WorkloadSpec
from rllm_bench.scenarios.base import Figures, Scenario


def unit(spec: WorkloadSpec, words: Words, index: int) -> Unit:
    """Turn t repeats all turns before it, with scripted answers: what a server may have cached then
    does not depend on what its model said. prompt_tokens is the length of each user turn."""
    rng = words.rng(spec, index)
    history: list[int] = []
    turns = []
    for _ in range(spec.turns):
        history = history + words.draw(rng, spec.prompt_tokens)
        turns.append(words.prompt(history, spec.output_tokens))
        history = history + words.draw(rng, spec.output_tokens)
    return turns


def longest(spec: WorkloadSpec) -> int:
    return spec.turns * (spec.prompt_tokens + spec.output_tokens)


def figures(requests: Sequence[RequestRecord]) -> Figures:
    """From the second turn on, where there is something to remember."""
    later = [(r.first_us - r.scheduled_us) / 1e3 for r in requests if r.turn and r.first_us is not None]
    return {f"later_ttft_p{q}_ms": float(np.percentile(later, q)) for q in (50, 95)} if later else {}


SCENARIOS = (
    Scenario(
        name="multi-turn",
        question="conversations side by side: the first token from the second turn on",
        unit=unit,
        longest=longest,
        figures=figures,
        usual={
            "concurrency": [8],
            "prompt_tokens": [40],
            "output_tokens": [24],
            "turns": 6,
            "requests_per_user": 1,
        },
        headline=("later_ttft_p50_ms", "later_ttft_p95_ms", "output_tps"),
    ),
)
