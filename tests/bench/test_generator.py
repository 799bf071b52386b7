"""Several processes share one workload; a generator that is late says so."""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec

from rllm_bench.figures.metrics import CellData
from rllm_bench.records.cells import GeneratorRecord
from rllm_bench.report import checks
from tests.bench.conftest import Delay, Measure, only_cell


def test_processes_share_the_work(delay: Callable[..., Delay], measure: Measure) -> None:
    """Every request is sent once, by one of them, and the file is in order of the workload."""
    server = delay(ttft_s=0.01, tpot_s=0.001)
    cell = only_cell(measure(server.url, concurrency=[4], requests_per_user=3, generators=2))
    assert [r.index for r in cell.requests] == list(range(12))
    assert {r.process for r in cell.requests} == {0, 1}
    assert len(cell.record.generators) == 2


def test_the_same_prompts_whatever_the_processes(delay: Callable[..., Delay], measure: Measure) -> None:
    server = delay(ttft_s=0.01, tpot_s=0.001)
    one = only_cell(measure(server.url, name="one", concurrency=[4], requests_per_user=2))
    two = only_cell(measure(server.url, name="two", concurrency=[4], requests_per_user=2, generators=2))
    assert one.record.workload_hash == two.record.workload_hash


def test_a_refusing_server_is_a_result(delay: Callable[..., Delay], measure: Measure) -> None:
    store = measure(delay(status=503).url, min_requests=3, requests_per_user=3)
    cell = only_cell(store)
    assert {r.error for r in cell.requests} == {"http_503"}
    assert len(cell.requests) == 3


def test_a_row_without_usage_is_refused(delay: Callable[..., Delay], measure: Measure) -> None:
    cell = only_cell(measure(delay(ttft_s=0.0, tpot_s=0.0, send_usage=False).url))
    assert {r.error for r in cell.requests} == {"no_usage"}


def test_chunks_are_not_tokens(delay: Callable[..., Delay], measure: Measure) -> None:
    """Two tokens a chunk: the token count stays the server's, and gaps stay gaps between chunks."""
    cell = only_cell(measure(delay(ttft_s=0.01, tpot_s=0.001, tokens_per_chunk=2).url, output_tokens=[8]))
    assert {r.completion_tokens for r in cell.requests} == {8}
    assert {len(r.gaps_us) for r in cell.requests} == {3}


def test_a_late_generator_makes_its_cell_invalid(delay: Callable[..., Delay], measure: Measure) -> None:
    cell = only_cell(measure(delay(ttft_s=0.05, tpot_s=0.001).url))
    late = GeneratorRecord(
        process=0,
        wall_s=1.0,
        cpu_s=0.1,
        loop_lag_p50_ms=1.0,
        loop_lag_p99_ms=40.0,
        loop_lag_max_ms=80.0,
        chunks=8,
        priority_raised=False,
    )
    record = msgspec.structs.replace(cell.record, generators=[late])
    reason = checks.invalid(CellData(record=record, requests=cell.requests))
    assert reason is not None
    assert "40.0 ms late" in reason


def test_no_key_reaches_the_disk(delay: Callable[..., Delay], measure: Measure) -> None:
    store = measure(delay(ttft_s=0.0, tpot_s=0.0).url)
    text = json.dumps([p.read_text() for p in store.folder.rglob("*.json*")])
    assert "Bearer" not in text
