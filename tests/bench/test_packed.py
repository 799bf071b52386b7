"""A packed run is the run: the same records, the same report, and it can be resumed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rllm_bench.quality.store import QualityStore
from rllm_bench.records import archive
from rllm_bench.records.store import Store
from rllm_bench.report.pack import pack
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


def test_runs_in_an_archive_are_read_as_if_their_folders_were_there(run: Store, tmp_path: Path) -> None:
    run.pack()
    report = tmp_path / "report"
    shutil.copytree(run.folder, report / "study" / "core")
    (report / "report.md").write_text("# Question\n")
    before = _content(render([report / "study" / "core"], tmp_path / "before").parent)
    cells = Store(report / "study" / "core").cells()

    pack(report)
    assert sorted(_content(report)) == ["records.tar.zst", "report.md"]
    assert Store(report / "study" / "core").cells() == cells
    assert _content(render([report / "study" / "core"], tmp_path / "after").parent) == before


def test_packing_twice_gives_the_same_archive_and_unpacking_every_file(tmp_path: Path) -> None:
    wrote = {
        "report.md": b"[log](logs/a.txt)\n![plot](plots/a.svg) [more](part/more.md)\n",
        "logs/a.txt": b"a log",
        "plots/a.svg": b"<svg/>",
        "part/more.md": b"[up](../logs/a.txt)\n",
        "part/unseen.md": b"no page leads here",
        "run.json": b"{}",
    }
    for name, content in wrote.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)

    once = pack(tmp_path).read_bytes()
    assert pack(tmp_path).read_bytes() == once
    kept = ["part/more.md", "plots/a.svg", "records.tar.zst", "report.md", "run.json"]
    assert sorted(_content(tmp_path)) == kept
    assert '[log](records.tar.zst "logs/a.txt")' in (tmp_path / "report.md").read_text()
    assert '[up](../records.tar.zst "logs/a.txt")' in (tmp_path / "part" / "more.md").read_text()
    assert archive.read_bytes(tmp_path / "logs" / "a.txt") == b"a log"
    assert not archive.exists(tmp_path / "logs" / "b.txt")

    archive.extract(tmp_path)
    assert sorted(_content(tmp_path)) == sorted(wrote)
    assert (tmp_path / "part" / "unseen.md").read_bytes() == wrote["part/unseen.md"]


def test_records_of_a_packed_quality_run_are_not_computed_again(tmp_path: Path) -> None:
    (tmp_path / "report.md").write_text("# Quality\n")
    QualityStore(tmp_path).answers("q8", "pairs", "key", list[int], lambda: [1, 2])
    pack(tmp_path)
    assert sorted(_content(tmp_path)) == ["records.tar.zst", "report.md"]
    assert QualityStore(tmp_path).answers("q8", "pairs", "key", list[int], lambda: []) == [1, 2]


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
