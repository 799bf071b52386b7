"""The first page names a winner only where there is one, and then says for whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from rllm_bench.figures.stats import Estimate, Interval
from rllm_bench.figures.summary import Result, Summary
from rllm_bench.records.cells import Load, Settings, WorkloadSpec
from rllm_bench.records.runs import RunRecord, Subject
from rllm_bench.report.answer import answer, choose, standing
from rllm_bench.report.tables import best_per_load, verdict_table

SIZES = {"rllm/q4": 100, "rllm/q8": 150, "rllm/f16": 270}


def row(
    subject: str, users: int, tps: float, attained: float = 1.0, spread: tuple[float, float] | None = None
) -> Result:
    values = {
        "output_tps": Estimate(tps, spread=Interval(*spread) if spread else None),
        "ttft_p50_ms": Estimate(1000 / tps),
        "attained_fast": Estimate(attained),
    }
    return Result(subject, f"c{users}", WorkloadSpec(), Load(concurrency=users), (), values)


def summary(*rows: Result, sizes: Mapping[str, int] = SIZES, preset: str = "standard") -> Summary:
    subjects = [
        Subject(name=name, engine="rllm", variant=name, model_bytes=size) for name, size in sizes.items()
    ]
    known = {subject.name: subject for subject in subjects}
    rows = tuple(replace(row, known=known.get(row.subject)) for row in rows)
    run = RunRecord(
        name="run", created_at="now", command="", preset=preset, settings=Settings(slots=8, ctx_per_slot=64),
        subjects=subjects, cells=[], slos={"fast": {"ttft": 500.0}}, price_per_hour=None, price_source="",
        environment={}, vocabulary="", seed=0,
    )  # fmt: skip
    return Summary([run], rows, run.slos)


def sentences(*rows: Result, sizes: Mapping[str, int] = SIZES) -> list[str]:
    found = answer(summary(*rows, sizes=sizes))
    assert found is not None
    return found.sentences


def test_no_difference_means_the_smallest_file_and_no_winner() -> None:
    rows = [row(name, users, tps) for users in (1, 8) for name, tps in zip(SIZES, (98, 99, 100), strict=True)]
    said = sentences(*rows)
    assert said[0] == (
        "No difference in speed between rllm/f16, rllm/q4 and rllm/q8 from one request at a time to 8 at "
        "once: take the smallest file, rllm/q4."
    )
    assert "no different from rllm/f16 and rllm/q8" in said[1]
    assert "×" not in said[1]


def test_a_difference_beyond_the_margin_has_a_winner() -> None:
    said = sentences(row("rllm/q4", 1, 100), row("rllm/f16", 1, 106))
    assert said[0] == "Choose rllm/f16 for one request at a time."
    assert "1.06× rllm/q4" in said[1]


def test_one_server_for_both_loads_where_nothing_beats_it() -> None:
    light = [row("rllm/q4", 1, 100), row("rllm/f16", 1, 101)]
    heavy = [row("rllm/q4", 8, 200), row("rllm/f16", 8, 300)]
    said = sentences(*light, *heavy)
    assert said[0] == "Choose rllm/f16 from one request at a time to 8 at once."
    assert "no different from rllm/q4, and" in said[1]
    assert "1.50× rllm/q4" in said[1]


def test_a_load_in_the_middle_counts() -> None:
    rows = [row("rllm/q4", users, 100) for users in (1, 4, 8)]
    rows += [row("rllm/f16", users, tps) for users, tps in ((1, 99), (4, 130), (8, 101))]
    assert sentences(*rows)[0] == "Choose rllm/f16 from one request at a time to 8 at once."


def test_a_tie_among_some_is_in_the_headline() -> None:
    rows = [row("rllm/q4", 8, 100), row("rllm/q8", 8, 102), row("rllm/f16", 8, 70)]
    said = sentences(*rows)
    assert said[0] == "Choose rllm/q4 for 8 at once; rllm/q8 is no different in speed."
    assert "no different from rllm/q8, 1.43× rllm/f16" in said[1]


def test_repeats_that_overlap_are_no_difference_however_far_the_means_are() -> None:
    one, other = row("rllm/q4", 1, 100, spread=(80, 125)), row("rllm/f16", 1, 120, spread=(118, 122))
    taken = choose(summary(one, other), standing(summary(one, other), [one, other]))
    assert (taken.result.subject, taken.same, taken.smallest) == ("rllm/q4", ("rllm/f16",), True)


def test_files_of_one_size_are_not_called_smaller() -> None:
    sizes = {"rllm/q4": 100, "llama-server/q4": 100}
    said = sentences(row("rllm/q4", 1, 99), row("llama-server/q4", 1, 100), sizes=sizes)
    assert said[0] == "No difference in speed between llama-server/q4 and rllm/q4 for one request at a time."


def test_an_unknown_size_is_not_taken_for_a_large_one() -> None:
    said = sentences(row("rllm/q4", 1, 99), row("url", 1, 100), sizes={"rllm/q4": 100})
    assert "smallest" not in said[0]


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        (
            (1.0, 1.0),
            "keeps TTFT ≤ 500 ms for 95 % of the requests up to 8 at once, the heaviest load measured.",
        ),
        ((1.0, 0.25), "up to one request at a time; with 8 at once 25 % meet it."),
    ],
)
def test_how_far_the_goal_is_kept(shares: tuple[float, float], said: str) -> None:
    rows = [row("rllm/q4", users, 100.0, share) for users, share in zip((1, 8), shares, strict=True)]
    assert said in sentences(*rows)[2]


def test_no_load_is_recommended_at_which_the_goal_is_missed() -> None:
    rows = [row("rllm/q4", users, 100.0, share) for users, share in ((1, 1.0), (4, 0.96), (8, 0.2))]
    said = sentences(*rows)
    assert said[0] == "Choose rllm/q4 from one request at a time to 4 at once."
    assert "8 at once" not in said[1]
    assert said[2].endswith("up to 4 at once; with 8 at once 20 % meet it.")


def test_who_misses_the_goal_is_not_chosen_however_fast() -> None:
    said = sentences(row("rllm/q4", 8, 300.0, 0.5), row("rllm/f16", 8, 100.0, 0.99))
    assert said[0] == "Choose rllm/f16 for 8 at once."


def test_where_nobody_keeps_the_goal_nothing_is_chosen() -> None:
    found = answer(summary(row("rllm/q4", 1, 100.0, 0.9), row("rllm/f16", 1, 100.0, 0.4)))
    assert found is not None
    (said,) = found.sentences
    assert said.startswith("None of these servers keeps TTFT ≤ 500 ms for 95 % of its requests")
    assert "the nearest is rllm/q4 with one request at a time: 90 %" in said


@pytest.mark.parametrize("preset", ["smoke", "quick"])
def test_a_first_impression_chooses_nothing(preset: str) -> None:
    found = answer(summary(row("rllm/q4", 1, 100.0), preset=preset))
    assert found is not None
    assert found.sentences[0].startswith("Too little data to choose: 0 repeats of each load, preset")
    assert "rllm/q4 gives 100 tokens/s" in found.sentences[1]


def test_the_tables_know_the_margin_too() -> None:
    found = summary(row("rllm/q4", 1, 100), row("rllm/q8", 1, 103), row("rllm/f16", 1, 80))
    (line,) = best_per_load(found).splitlines()[2:]
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[3:7] == ["**rllm/q4**", "100", "rllm/q8", "rllm/f16: 1.25×"]
    assert "≈ 1.03×" in verdict_table(found, "rllm/q4")
