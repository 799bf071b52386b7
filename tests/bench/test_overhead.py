"""The verdict on what it costs to see, from the raw pairs alone."""

from __future__ import annotations

import math

import pytest

from observability_overhead import judge, report, student_t


def _pairs(*ratios: float) -> list[dict[str, object]]:
    return [{"first": "on", "on": {"tok/s": 200 * ratio}, "off": {"tok/s": 200.0}} for ratio in ratios]


def test_equal_pairs_leave_no_doubt() -> None:
    found = judge(_pairs(*[0.98] * 10), seed=1)
    assert found["ratio"] == pytest.approx(0.98)
    assert found["interval"] == pytest.approx([0.98, 0.98])


def test_the_interval_is_students_on_the_logarithms() -> None:
    found = judge(_pairs(*[0.9, 1.0] * 5), seed=1)
    centre, half = math.log(0.9) / 2, 2.262 * 0.0555316 / math.sqrt(10)
    assert found["ratio"] == pytest.approx(math.exp(centre))
    assert found["interval"] == pytest.approx([math.exp(centre - half), math.exp(centre + half)], rel=1e-3)
    low, high = found["bootstrap"]
    assert found["interval"][0] < low < found["ratio"] < high < found["interval"][1]


@pytest.mark.parametrize(("freedom", "quantile"), [(9, 2.262), (19, 2.093), (29, 2.045)])
def test_the_quantiles_are_those_of_the_tables(freedom: int, quantile: float) -> None:
    assert student_t(freedom) == pytest.approx(quantile, abs=1e-3)


def test_the_report_says_when_the_goal_is_missed() -> None:
    rows = _pairs(*[0.95, 0.96] * 5)
    record = {
        "environment": {"cpu": {"model": "x", "cores_usable": 2}, "git": {"commit": "abc", "dirty": False}},
        "model": {"name": "q4.gguf"},
        "plan": {"on": ["metrics"], "num_words": 40, "max_tokens": 96, "threads": 2},
        "missing": {"ui": "rllm-serve has no /ui"},
        "seen": {"answers of /metrics": 3},
        "result": judge(rows, seed=1),
        "pairs": rows,
    }
    text = report(record)
    assert "**the interval does not lie above 0.97**" in text
    assert "not on: ui" in text
    assert text.count("| on |") == 10
