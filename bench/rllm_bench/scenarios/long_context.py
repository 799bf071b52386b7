"""Very long prompts: what attention over a long context costs, alone and side by side."""

from __future__ import annotations

from rllm_bench.scenarios.base import Scenario
from rllm_bench.scenarios.unique import unit

SCENARIOS = (
    Scenario(
        name="long-context",
        question="prompts of 8k and 32k tokens, for one user and for eight",
        unit=unit,
        usual={
            "concurrency": [1, 8],
            "prompt_tokens": [8_192, 32_768],
            "output_tokens": [64],
            "requests_per_user": 1,
            "min_requests": 2,
        },
        headline=("ttft_p50_ms", "tpot_p50_ms", "output_tps"),
    ),
)
