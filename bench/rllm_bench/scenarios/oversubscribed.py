"""Users who together want half as much again as the cache can hold."""

from __future__ import annotations

from collections.abc import Sequence

from rllm_bench.records.cells import RequestRecord
from rllm_bench.scenarios.base import Figures, Scenario
from rllm_bench.scenarios.unique import unit


def figures(requests: Sequence[RequestRecord]) -> Figures:
    """Whose answer is as long as was asked."""
    whole = sum((r.completion_tokens or 0) >= r.max_tokens for r in requests)
    return {"finished": float(whole)}


SCENARIOS = (
    Scenario(
        name="oversubscribed",
        question="16 streams that want 1.5 times the cells of the cache",
        unit=unit,
        figures=figures,
        cells_share=1 / 1.5,
        usual={
            "concurrency": [16],
            "prompt_tokens": [100],
            "output_tokens": [284],
            "requests_per_user": 1,
        },
        headline=("finished", "output_tps", "e2e_p99_ms"),
    ),
)
