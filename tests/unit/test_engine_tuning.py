"""Constants of the engine say where they come from."""

from __future__ import annotations

import re
from pathlib import Path

from rllm.engine import tuning

REPORTS = Path(__file__).parents[2] / "reports"


def test_every_report_that_chose_a_value_is_there() -> None:
    named = re.findall(r"Report: ([\w-]+)", Path(tuning.__file__).read_text())
    archive = (REPORTS / "archive.md").read_text()
    assert named
    assert [name for name in named if not (REPORTS / name).is_dir() and name not in archive] == []
