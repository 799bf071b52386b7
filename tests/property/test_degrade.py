"""The ladder never swings, and finds its way back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllm.serving.degrade import Ladder
from rllm.settings.degrade import Action, parse_rung

RUNGS = [parse_rung(text) for text in ("1.5:cap=32", "2:shed=0", "3:route", "6:refuse")]
loads = st.lists(st.tuples(st.floats(0, 3), st.floats(0, 8)), max_size=60)


@given(loads)
def test_the_level_is_at_least_what_the_load_demands(steps: list[tuple[float, float]]) -> None:
    ladder, now = Ladder(RUNGS, hold_s=2), 0.0
    for pause, load in steps:
        now += pause
        assert ladder.hear(load, now) >= sum(load >= rung.at for rung in RUNGS)


@given(loads)
def test_it_falls_one_rung_at_a_time_and_not_sooner_than_the_hold(steps: list[tuple[float, float]]) -> None:
    ladder, now, changed_at, level = Ladder(RUNGS, hold_s=2), 0.0, 0.0, 0
    for pause, load in steps:
        now += pause
        after = ladder.hear(load, now)
        if after < level:
            assert after == level - 1
            assert now - changed_at >= 2
        if after != level:
            level, changed_at = after, now


@given(loads)
def test_calm_brings_it_back_to_normal(steps: list[tuple[float, float]]) -> None:
    ladder, now = Ladder(RUNGS, hold_s=2), 0.0
    for pause, load in steps:
        now += pause
        ladder.hear(load, now)
    for _ in range(2 * len(RUNGS) + 2):
        now += 2
        ladder.hear(0, now)
    assert ladder.level == 0
    assert ladder.measures().max_tokens is None


def test_a_load_just_below_the_rung_keeps_the_level() -> None:
    ladder = Ladder(RUNGS, hold_s=2)
    ladder.hear(2.0, 0)
    assert [ladder.hear(1.7, now) for now in (1.0, 5.0, 50.0)] == [2, 2, 2]


def test_measures_add_up() -> None:
    ladder = Ladder(RUNGS)
    ladder.hear(4.5, 0)
    measures = ladder.measures()
    assert (measures.max_tokens, measures.max_priority, measures.route, measures.refuse) == (
        32,
        0,
        True,
        False,
    )


@pytest.mark.parametrize(
    "text", ["", "1", "x:cap=1", "1:cap", "1:cap=0", "0:route", "1:fly", "nan:route", "1:shed=x"]
)
def test_a_rung_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_rung(text)


def test_rungs_are_read_as_written() -> None:
    assert (RUNGS[0].action, RUNGS[0].max_tokens, RUNGS[1].priority) == (Action.CAP, 32, 0)
