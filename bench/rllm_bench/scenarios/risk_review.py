"""A risk review: a long policy that all share, a short case, a short verdict.

The words are plain English and mean something, so that answers can be read, constrained and judged; lengths
are therefore about those of the spec, and the server's usage says what they were.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from rllm_bench.load.prompts import Prompt, Unit, Words
from rllm_bench.records.cells import WorkloadSpec
from rllm_bench.scenarios.base import Scenario

_TOKENS_A_WORD = 1.5
_STREAM = 0x815C
_MARGIN = 1.5
"""Of tokens over the planned ones, for tokenizers that cut English finer."""
_WHO = (
    "a private customer",
    "a sole trader",
    "a small company",
    "a charity",
    "a public body",
    "an intermediary",
)
_WHAT = (
    "a cash deposit",
    "an incoming transfer",
    "an outgoing transfer",
    "a card payment",
    "a loan",
    "a refund",
)
_WHERE = (
    "at home",
    "in the same currency area",
    "in a neighbouring country",
    "overseas",
    "in a listed country",
)
_WHEN = ("on the first occasion", "twice in a week", "more than five times a month", "outside business hours")
_THEN = (
    "ask for the origin of the funds",
    "let it pass and keep a note",
    "hold it until a second officer agrees",
    "refuse it and inform the reporting officer",
    "compare it with the declared purpose",
)


@lru_cache(maxsize=8)
def policy(spec: WorkloadSpec) -> str:
    """Numbered rules, as many as fill about prefix_tokens."""
    rng = np.random.default_rng([spec.seed, _STREAM])
    lines, words = ["Policy for the review of transactions."], 5
    while words * _TOKENS_A_WORD < spec.prefix_tokens:
        amount = int(rng.integers(2, 500)) * 100
        parts = [str(rng.choice(choices)) for choices in (_WHO, _WHAT, _WHERE, _WHEN, _THEN)]
        who, what, where, when, then = parts
        lines.append(f"{len(lines)}. Where {who} makes {what} above {amount} EUR {where} {when}, {then}.")
        words += len(lines[-1].split())
    return "\n".join(lines)


def unit(spec: WorkloadSpec, words: Words, index: int) -> Unit:
    rng = words.rng(spec, index)
    case = (
        f"Case {int(rng.integers(10**6))}: {rng.choice(_WHO)} makes {rng.choice(_WHAT)} of "
        f"{int(rng.integers(1, 900)) * 100 + 37} EUR {rng.choice(_WHERE)} {rng.choice(_WHEN)}. "
        f"The file names {int(rng.integers(1, 9))} earlier cases."
    )
    ask = 'Answer with JSON only: {"verdict": "pass" | "hold" | "refuse", "rule": NUMBER, "reason": "..."}\n'
    return [Prompt(f"{policy(spec)}\n\n{case}\n{ask}", None, spec.output_tokens)]


def longest(spec: WorkloadSpec) -> int:
    return int(_MARGIN * spec.prompt_tokens) + spec.output_tokens


SCENARIOS = (
    Scenario(
        name="risk-review",
        question="a long shared policy, a short case, a short verdict",
        unit=unit,
        longest=longest,
        usual={
            "concurrency": [1, 8],
            "prompt_tokens": [1100],
            "prefix_tokens": 1000,
            "output_tokens": [32],
            "requests_per_user": 3,
            "min_requests": 8,
        },
        headline=("request_rps", "ttft_p50_ms", "ttft_p95_ms", "e2e_p50_ms"),
    ),
)
