"""What it costs to see: only the server that has it on is watched, and the verdict is that of the pairs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from micro.observability import OFF, ON, Watchers, judge, measure, request_lines, switches
from rllm_bench.records.cells import CellSpec, Load, WorkloadSpec
from rllm_bench.targets import processes
from tests.bench.conftest import Delay


@pytest.mark.slow
def test_pairs_take_turns_and_are_judged(delay: Callable[..., Delay], tmp_path: Path) -> None:
    on, off = delay(ttft_s=0.01, tpot_s=0.004), delay(ttft_s=0.01, tpot_s=0.002)
    watchers = Watchers([], on.url, processes.free_port())
    store = measure({ON: on.url, OFF: off.url}, watchers, 3, 1, tmp_path / "run")
    found = judge(store)
    assert found is not None
    assert found.pairs == 3
    assert found.ratio < 1


def test_the_page_is_open_while_the_server_that_has_it_on_is_measured(delay: Callable[..., Delay]) -> None:
    server = delay(ttft_s=0.0, tpot_s=0.0)
    watchers = Watchers(["ui"], server.url, processes.free_port())
    spec = CellSpec(subject=OFF, workload=WorkloadSpec(), load=Load(concurrency=1), num_requests=1)
    with watchers.watching():
        watchers.cell_started(spec)
        time.sleep(1.5)
        assert not watchers.seen
        watchers.cell_started(CellSpec(subject=ON, workload=spec.workload, load=spec.load, num_requests=1))
        deadline = time.monotonic() + 30
        while not watchers.seen and time.monotonic() < deadline:
            time.sleep(0.05)
        watchers.cell_finished(spec, None)
    assert sum(watchers.seen.values()) >= 1


def test_lines_of_requests_are_counted(tmp_path: Path) -> None:
    log = tmp_path / "on.log"
    log.write_text('a banner\n{"event":"request","status":200}\n{"event":"ready"}\n')
    assert request_lines(log) == 1


def test_what_is_off_is_switched_off() -> None:
    off = switches([], "http://collector")
    assert {"--no-metrics", "--no-ui", "error"} <= set(off)
    on = switches(["metrics", "logs", "tracing", "ui"], "http://collector")
    assert on == ["--log-format", "json", "--log-level", "info", "--otlp-endpoint", "http://collector"]
