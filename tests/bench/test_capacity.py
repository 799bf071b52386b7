"""What the load generator can do before it measures itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rllm_bench.figures import metrics
from rllm_bench.report import checks
from tests.bench.conftest import Delay, Measure, only_cell

pytestmark = pytest.mark.slow


def test_two_thousand_chunks_a_second_from_64_streams(delay: Callable[..., Delay], measure: Measure) -> None:
    """With less than half of one core, and with a lag that is far below any latency worth measuring."""
    server = delay(ttft_s=0.05, tpot_s=1 / 32, spread_s=0.5)
    cell = only_cell(measure(server.url, concurrency=[64], output_tokens=[256], requests_per_user=1))
    load = metrics.client_load(cell)
    _, weights = metrics.token_times(cell.good)
    rate = weights.sum() / (cell.duration_s - 0.3)
    assert rate > 1_900
    assert load["client_cpu_cores"] < 0.5
    assert load["client_lag_p99_ms"] < 5.0
    assert checks.invalid(cell) is None
