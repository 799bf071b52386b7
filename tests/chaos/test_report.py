"""Scenarios that ran at different times make one report."""

from __future__ import annotations

from pathlib import Path

from tests.chaos import report
from tests.chaos.circumstances import observed
from tests.chaos.result import Result, Series, load


def _result(name: str, kept: bool, command: str) -> Result:
    result = Result(name, f"The {name} scenario", "set-up")
    result.check("it holds", kept, "measured")
    result.tables.append(("Table", ["a"], [[1]]))
    result.series.append(Series("Line", [0.0, 1.0], {"x": [1.0, 2.0]}))
    with observed(command) as facts:
        pass
    result.circumstances = facts
    return result


def test_each_result_is_kept_and_the_report_has_all_of_them(tmp_path: Path) -> None:
    names = ("one", "two", "three")
    _result("two", False, "first run").save(tmp_path)
    report.write(tmp_path, names)
    _result("one", True, "second run").save(tmp_path)
    text = report.write(tmp_path, names).read_text()
    assert text.index("## The one scenario") < text.index("## The two scenario")
    assert "**1 of 2 promises kept.**" in text
    assert "`first run`" in text
    assert "Not run: three." in text
    assert (tmp_path / "two-0.svg").exists()
    _result("two", True, "third run").save(tmp_path)
    text = report.write(tmp_path, names).read_text()
    assert "**2 of 2 promises kept.**" in text
    assert "first run" not in text


def test_a_result_is_read_back_as_it_was(tmp_path: Path) -> None:
    result = _result("one", True, "run")
    result.save(tmp_path)
    assert load(tmp_path / "one.json") == result


def test_the_circumstances_are_known() -> None:
    with observed("run") as facts:
        sum(range(10_000))
    assert facts.started.endswith("UTC")
    assert facts.commit
    assert 0 <= facts.others_percent <= 100
