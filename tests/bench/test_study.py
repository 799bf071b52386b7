"""The GPU study on no GPU: pieces against servers that wait as long as they are told."""

from __future__ import annotations

import json
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from rllm_bench.figures.summary import judged
from rllm_bench.load.client import Endpoint
from rllm_bench.records.runs import Settings, Subject
from rllm_bench.records.store import Store
from rllm_bench.study import run as study_run
from rllm_bench.study import vllm
from rllm_bench.study.cli import main
from rllm_bench.study.goals import GOALS, table
from rllm_bench.study.pieces import FLAVOURS, PIECES, Grid, Piece, split
from rllm_bench.study.rows import Row
from rllm_bench.study.run import Study, cells
from rllm_bench.study.subjects import Configured, Places, target, vllm_label
from rllm_bench.study.summary import page
from rllm_bench.targets.base import Launch

SCRIPT = Path(__file__).with_name("delay_server.py")


@dataclass(frozen=True)
class DelayTarget:
    engine: str
    variant: str
    model: Path
    log: Path
    behaviour: str = '{"ttft_s": 0.01, "tpot_s": 0.001}'

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return "1"

    def launch(self, settings: Settings, port: int, end_tokens: tuple[int, ...]) -> Launch:
        command = [sys.executable, str(SCRIPT), str(port), str(self.log), self.behaviour]
        return Launch(endpoint=Endpoint(base_url=f"http://127.0.0.1:{port}", model=""), command=command)


PIECE = Piece(
    name="tiny",
    what="for tests",
    subjects=("rllm:q4_k_m", "rllm:q4_k_m+t08"),
    grids=(
        Grid(
            concurrency=(2,),
            prompts=(8,),
            outputs=(4,),
            kind="shared-prefix",
            prefix_tokens=4,
            requests_per_user=1,
            min_requests=2,
        ),
    ),
    slots=2,
)


@pytest.fixture
def study(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    log = tmp_path / "served.jsonl"

    def delayed(name: str, places: Places, best: tuple[str, ...]) -> Configured:
        engine, variant, flavours = split(name)
        label = "".join(f"+{flavour}" for flavour in flavours)
        body = {key: value for flavour in flavours for key, value in FLAVOURS[flavour].body.items()}
        return Configured(DelayTarget(engine, variant, tiny_model, log), label, body=body)

    monkeypatch.setattr(study_run, "target", delayed)
    monkeypatch.setattr(study_run.vocabulary, "from_gguf", lambda _path: study_run.vocabulary.plain_words())
    return Study(tmp_path / "work", tmp_path / "out", Places(models=tmp_path), time.monotonic() + 60)


def packed(study: Study) -> set[str]:
    with tarfile.open(study.out / "gpu-study.tar.gz") as tar:
        return set(tar.getnames())


def test_a_piece_is_measured_packed_and_not_measured_again(study: Study) -> None:
    study.run([PIECE])
    store = Store(study.work / "tiny")
    done = judged(store)
    assert [cell.record.spec.subject for cell in done] == ["rllm/q4_k_m", "rllm/q4_k_m+t08"]
    assert all(len(cell.good) == 2 for cell in done)
    (server,) = json.loads((store.folder / "servers.json").read_text())  # one process, asked in two ways
    assert server["subject"] == "rllm/q4_k_m"
    assert done[1].record.target["body"]["temperature"] == 0.8
    assert "gpu-study/tiny/run.json" in packed(study)
    began = [cell.record.started_at for cell in done]
    study.run([PIECE])
    assert [cell.record.started_at for cell in store.cells()] == began


def test_what_does_not_fit_into_the_time_is_left_out_and_said(study: Study) -> None:
    study.deadline = time.monotonic()
    study.run([PIECE])
    assert "tiny" in study.left_out[0]
    assert Store(study.work / "tiny").cells() == []


def subjects(piece: Piece) -> list[Subject]:
    names = [split(name) for name in piece.subjects]
    return [
        Subject(name=f"{engine}/{variant}", engine=engine, variant=variant) for engine, variant, _ in names
    ]


def test_repeats_are_outermost_and_go_forth_and_back() -> None:
    piece = next(piece for piece in PIECES if piece.name == "core-q4")
    planned = cells(piece, subjects(piece), 3, seed=1)
    first = [spec.subject for spec in planned if spec.repeat == 0]
    second = [spec.subject for spec in planned if spec.repeat == 1]
    assert first == second[::-1]
    assert all(spec.num_requests >= 3 * (spec.load.concurrency or 1) for spec in planned)


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.name)
def test_every_piece_is_known_and_shorter_than_ten_minutes(piece: Piece, tmp_path: Path) -> None:
    running = vllm.Running("http://127.0.0.1:1")
    labels = {vllm_label(split(name)[2]) for name in piece.subjects}
    places = Places(models=tmp_path, llama_server="llama-server", vllm=dict.fromkeys(labels, running))
    for name in piece.subjects:
        made = target(name, places, ())
        assert made is not None
        launch = made.launch(Settings(slots=piece.slots, ctx_per_slot=piece.ctx), 1, ())
        assert None not in launch.endpoint.body.values()
    result = CliRunner().invoke(main, ["run", "--piece", piece.name, "--dry-run", "--budget-s", "600"])
    assert result.exit_code == 0, result.output
    assert "does not fit" not in result.output


def test_the_best_llama_server_stands_for_it_under_its_own_name(tmp_path: Path) -> None:
    def command(name: str) -> list[str]:
        made = target(name, Places(models=tmp_path, llama_server="llama-server"), ("nocache",))
        assert made is not None
        launch = made.launch(Settings(slots=4, ctx_per_slot=512), 1, ())
        assert launch.command is not None
        return [made.variant, *launch.command]

    peer = command("llama-server:f16")
    assert peer[0] == "f16"
    assert "--cache-ram" in peer
    assert "--cache-ram" not in command("llama-server:f16+unified")


def test_vllm_is_found_by_later_calls_and_stopped(tmp_path: Path) -> None:
    sleeper = f"{sys.executable} -c 'import time; time.sleep(60)' {{port}} {{share}}"
    running = vllm.start(tmp_path, sleeper, {}, 0.5)
    assert vllm.start(tmp_path, sleeper, {}, 0.5) == running == vllm.find(tmp_path)
    assert running.failed() is None
    other = vllm.start(tmp_path, sleeper, {}, 0.5, "+batch2k", ["--more"])
    assert vllm.find_all(tmp_path) == {"": running, "+batch2k": other}
    assert other.command[-1] == "--more"
    vllm.stop(tmp_path)
    assert vllm.find_all(tmp_path) == {}


def test_a_vllm_that_ends_says_why(tmp_path: Path) -> None:
    running = vllm.start(tmp_path, f"{sys.executable} -c 'raise SystemExit(\"no GPU\")'", {}, 0.5)
    reason = running.wait_ready(time.time() + 30)
    assert reason is not None
    assert "no GPU" in reason


def test_no_two_pieces_ask_the_same() -> None:
    seeds = [
        {spec.workload.seed for spec in cells(piece, subjects(piece), piece.repeats, seed=1)}
        for piece in PIECES
    ]
    assert sum(map(len, seeds)) == len(set.union(*seeds))


def test_the_page_has_the_figures_and_says_what_was_not_measured(study: Study) -> None:
    study.run([PIECE])
    text = page(study.work)
    assert "| rllm/q4_k_m+t08 | shared-prefix-c2-p8-o4-x4 |" in text
    assert text.count("not measured") == len(GOALS)
    assert "**tiny**" in text


def row(subject: str, group: str, piece: str, **values: float) -> Row:
    return Row(piece, subject, group, 3, values, 0)


def test_goals_are_held_against_the_best_of_each_side() -> None:
    group = "c64-p400-o128"
    found = [
        row("rllm/q4_k_m", group, "core-q4", output_tps=1700.0, itl_p50_ms=18.0),
        row("rllm/f16", group, "core-f16", output_tps=2500.0),
        row("llama-server/q4_k_m", group, "core-q4", output_tps=1000.0, itl_p50_ms=34.0),
        row("llama-server/f16", group, "core-f16", output_tps=1250.0),
        row("vllm/f16", group, "core-q4", output_tps=6000.0),
    ]
    text = "\n".join(table(found))
    assert "| 2,500.0 | llama-server | 1,250.0 | 2.00 | ≥ 2.2 | **not reached** |" in text
    assert "| 2,500.0 | vllm | 6,000.0 | 0.42 | ≥ 0.4 | reached |" in text
    assert "c=64 q4_k_m, ITL p50 | 18.0 | llama-server | 34.0 | 0.53 | ≤ 0.6 | reached |" in text
