"""Prompts that have nothing in common: no cache helps."""

from __future__ import annotations

from rllm_bench.load.prompts import Unit, Words
from rllm_bench.records.cells import WorkloadSpec
from rllm_bench.scenarios.base import Scenario


def unit(spec: WorkloadSpec, words: Words, index: int) -> Unit:
    return [words.prompt(words.draw(words.rng(spec, index), max(1, spec.prompt_tokens)), spec.output_tokens)]


SCENARIOS = (
    Scenario(
        name="unique",
        question="throughput and latency of N users who ask for different things",
        unit=unit,
        usual={
            "concurrency": [1, 8, 16],
            "prompt_tokens": [100],
            "output_tokens": [64],
            "requests_per_user": 6,
            "min_requests": 24,
        },
    ),
)
