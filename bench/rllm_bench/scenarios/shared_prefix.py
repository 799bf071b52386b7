"""Prompts that begin alike: a system prompt, a policy, a few examples."""

from __future__ import annotations

from rllm_bench.load.prompts import Unit, Words
from rllm_bench.records.cells import WorkloadSpec
from rllm_bench.scenarios.base import Scenario

_STREAM = 0x50F1
_BEYOND = 10**7
"""Index of a unit that no cell reaches: its prefix is theirs, what follows is not."""


def unit(spec: WorkloadSpec, words: Words, index: int) -> Unit:
    prefix = words.shared(spec, _STREAM, index % spec.prefix_groups, count=spec.prefix_tokens)
    own = words.draw(words.rng(spec, index), max(1, spec.prompt_tokens - len(prefix)))
    return [words.prompt(prefix + own, spec.output_tokens)]


def before(spec: WorkloadSpec, words: Words) -> list[Unit]:
    """Each prefix once, where the plan wants them computed before it counts."""
    first = _BEYOND - _BEYOND % spec.prefix_groups
    return (
        [unit(spec, words, first + group) for group in range(spec.prefix_groups)] if spec.warm_prefix else []
    )


def problem(spec: WorkloadSpec) -> str | None:
    if 0 < spec.prefix_tokens < spec.prompt_tokens:
        return None
    return f"needs 0 < prefix_tokens < prompt_tokens={spec.prompt_tokens}"


SCENARIOS = (
    Scenario(
        name="shared-prefix",
        question="requests that arrive at once and begin with the same tokens",
        unit=unit,
        before=before,
        problem=problem,
        usual={
            "concurrency": [8],
            "prompt_tokens": [620],
            "prefix_tokens": 600,
            "output_tokens": [32],
            "requests_per_user": 1,
        },
        headline=("output_tps", "ttft_p50_ms", "ttft_p95_ms"),
    ),
)
