"""Every quick attack, on the tiny model. All of them, and the report: ``scripts/attack``."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from tests.attack.arena import Arena
from tests.attack.case import Case, Outcome, all_cases
from tests.attack.run import play, summary


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{case.entry}-{case.name}") for case in all_cases() if case.quick]
)
async def test_the_promise_is_kept(case: Case, tiny_model: Path, tmp_path: Path) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http:
        outcome = await play(case, Arena(http, tiny_model, tmp_path, slack=8.0), limit_s=90)
    assert outcome.kept, f"{case.promise}: {outcome.found}"


def test_several_runs_are_one_median() -> None:
    runs = [
        Outcome(kept, f"run {gap}", {"gap_s": gap}) for kept, gap in ((True, 1.0), (False, 9.0), (True, 3.0))
    ]
    assert summary(runs) == Outcome(True, "run 3.0", {"gap_s": 3.0})
