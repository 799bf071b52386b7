"""A packed run is the run: the same records, the same report, and it can be resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rllm_bench.records.store import Store
from rllm_bench.report.page import render
from tests.bench.conftest import Delay, Measure


@pytest.fixture
def run(delay: Callable[..., Delay], measure: Measure) -> Store:
    server = delay(ttft_s=0.01, tpot_s=0.001, spread_s=0.01)
    return measure(server.url, concurrency=[1, 2], repeats=2, requests_per_user=3)


def test_a_packed_run_gives_the_same_report_to_the_last_byte(run: Store, tmp_path: Path) -> None:
    before = _content(render([run.folder], tmp_path / "before").parent)
    cells = run.cells()
    run.pack()
    assert not run.raw.exists()
    assert Store(run.folder).cells() == cells
    assert _content(render([run.folder], tmp_path / "after").parent) == before


def test_unpacking_restores_every_file(run: Store) -> None:
    before = _content(run.raw)
    run.pack()
    again = Store(run.folder)
    again.unpack()
    assert _content(run.raw) == before
    assert not run.packed_path.exists()


def test_a_run_with_cells_to_do_is_not_packed(run: Store) -> None:
    next(run.raw.glob("*.cell.json")).unlink()
    run.pack()
    assert run.raw.exists()
    assert not run.packed_path.exists()


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
