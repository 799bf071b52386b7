"""On the committed runs: the answer is what their tables say, and moves with goal and floor as it should."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from rllm_bench.commands.recommend import recommend
from rllm_bench.figures import metrics
from rllm_bench.figures.summary import judged
from rllm_bench.quality.gate import load_limits
from rllm_bench.recommend import join
from rllm_bench.recommend.decide import decide
from rllm_bench.recommend.options import Floor, Option
from rllm_bench.records.store import Store

REPORTS = Path(__file__).parents[3] / "reports"
QUALITY = REPORTS / "2026-11-25-quality-smollm2-2cpu"
PEERS = REPORTS / "2026-11-25-peers-2cpu"
SHARE = 0.95
GOAL = "server"


@pytest.fixture
def speed() -> Path:
    return PEERS


def options(speed: Path, goal: dict[str, float] | None = None) -> list[Option]:
    limits = goal or json.loads((speed / "run.json").read_text())["slos"][GOAL]
    return join.options(join.measured([speed]), join.qualities([QUALITY], load_limits()), limits, None)


def by_workload(found: Sequence[Option]) -> Iterator[list[Option]]:
    for workload in dict.fromkeys(one.workload for one in found):
        yield [one for one in found if one.workload == workload]


@dataclass
class Row:
    """The figures of a subject under a load over its repeats, and the divergence beside them."""

    subject: str
    group: str
    tps: float
    attained: float
    kld: float | None


def table(speed: Path) -> list[Row]:
    run, quality = (json.loads(p.read_text()) for p in (speed / "run.json", QUALITY / "quality.json"))
    kld = {one["model"]["sha256"]: one["divergence"]["kld_mean"]["value"] for one in quality["variants"]}
    kld[quality["reference"]["model"]["sha256"]] = 0.0
    hashes = {one["name"]: one["model_sha256"] for one in run["subjects"]}
    grouped: dict[tuple[str, str], list[dict[str, float]]] = {}
    for cell in judged(Store(speed)):
        spec = cell.record.spec
        grouped.setdefault((spec.subject, spec.group), []).append(metrics.summarize(cell, run["slos"]))

    def middle(repeats: list[dict[str, float]], name: str) -> float:
        return statistics.median(values[name] for values in repeats)

    return [
        Row(
            subject,
            group,
            middle(repeats, "output_tps"),
            middle(repeats, f"attained_{GOAL}"),
            kld.get(hashes[subject]),
        )
        for (subject, group), repeats in grouped.items()
    ]


@pytest.mark.parametrize("max_kld", [None, 0.2, 0.01, 0.0])
def test_the_answer_is_the_cheapest_row_that_meets_both(speed: Path, max_kld: float | None) -> None:
    """One machine, one price: the cheapest is the one with the most tokens within the goal."""
    for found in by_workload(options(speed)):
        loads = {(one.subject, one.load) for one in found}
        able = [
            row
            for row in table(speed)
            if any(row.subject == subject and row.group.startswith(f"{load}-") for subject, load in loads)
            and any(row.group.endswith(shape(one)) for one in found)
            and row.attained >= SHARE
            and (max_kld is None or (row.kld is not None and row.kld <= max_kld))
        ]
        best = decide(found, Floor(max_mean_kld=max_kld), SHARE).best
        if not able:
            assert best is None
            continue
        expected = max(able, key=lambda row: row.tps * row.attained)
        assert best is not None
        assert (best.subject, best.load) == (expected.subject, expected.group.partition("-")[0])
        assert best.good_tps == pytest.approx(expected.tps * expected.attained, rel=1e-5)


def shape(option: Option) -> str:
    """As a group ends: p256-o32."""
    words = option.workload.split()
    return f"p{words[1]}-o{words[3]}"


def test_a_stricter_floor_never_pays_less_and_is_kept(speed: Path) -> None:
    for found in by_workload(options(speed)):
        answers = [decide(found, Floor(max_mean_kld=kld), SHARE).best for kld in (1.0, 0.1, 0.03, 0.005, 0.0)]
        costs = [best.cost_per_1k for best in answers if best is not None]
        assert costs == sorted(costs, key=lambda cost: cost or 0.0)
        for best, limit in zip(answers, (1.0, 0.1, 0.03, 0.005, 0.0), strict=True):
            if best is not None:
                assert best.quality is not None
                assert best.quality.is_reference or (best.quality.mean_kld or 0.0) <= limit
        last = answers[-1]
        assert last is None or (last.quality is not None and last.quality.mean_kld == 0.0)


def test_a_looser_goal_never_pays_more_and_an_impossible_one_has_no_answer(speed: Path) -> None:
    found = {
        factor: options(speed, {"ttft": 500 * factor, "tpot": 30 * factor}) for factor in (0.5, 1, 4, 100)
    }
    for workload in dict.fromkeys(one.workload for one in found[1]):
        best = [
            decide([one for one in level if one.workload == workload], Floor(), SHARE).best
            for level in found.values()
        ]
        speeds = [one.good_tps if one else 0.0 for one in best]
        assert speeds == sorted(speeds)
        assert best[-1] is not None
    assert decide(options(speed, {"ttft": 0.001}), Floor(), SHARE).best is None


def test_the_command_writes_answer_and_plot(speed: Path, tmp_path: Path) -> None:
    command = [
        "--quality",
        str(QUALITY),
        "--speed",
        str(speed),
        "--floor",
        "kld:0.2",
        "-o",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(recommend, command)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "out" / "recommendation.md").read_text()
    assert "**Serve " in text
    assert "What would change the answer" in text
    assert list((tmp_path / "out").glob("cost-*.png"))


@pytest.mark.parametrize(
    ("engine", "ttft", "tpot", "max_kld", "answer"),
    [
        ("rllm", 2000, 100, 0.06, ("rllm/f16", "c8")),
        ("rllm", 500, 30, 0.06, ("rllm/f16", "c4")),
        ("rllm", 300, 20, 0.01, ("rllm/q8", "c1")),
        ("rllm", 300, 20, 0.001, ("rllm/f16", "c1")),
        ("llama-server", 2000, 100, 0.06, ("llama-server/q8", "c8")),
        ("llama-server", 2000, 100, 0.001, ("llama-server/f16", "c4")),
        ("llama-server", 500, 30, 0.06, ("llama-server/q8", "c1")),
        ("llama-server", 50, 30, 0.06, None),
    ],
)
def test_goal_and_floor_move_the_answer(
    engine: str, ttft: float, tpot: float, max_kld: float, answer: tuple[str, str] | None
) -> None:
    """The answers that reports/2026-11-25-recommend-2cpu gives."""
    found = options(PEERS, {"ttft": ttft, "tpot": tpot})
    decision = decide([one for one in found if one.engine == engine], Floor(max_mean_kld=max_kld), SHARE)
    assert decision.answer == answer
