"""What is drafted, and when that is found to pay."""

from __future__ import annotations

import pytest

from rllm.engine.drafts import Speculation
from rllm.engine.lookup import Lookup, Rates
from rllm.engine.sequence import Sequence
from rllm.engine.times import RowTimes, StepShape, StepTimes
from rllm.engine.tuning import DEFAULT
from rllm.engine.types import EngineRequest

REPEATS = (1, 2, 3, 4, 5, 1, 2)
"""After 1, 2 came 3, 4, 5, 1, 2."""
STRANGE = (10, 11, 12, 13)


def look(tokens: tuple[int, ...], count: int) -> list[int]:
    lookup = Lookup(len(tokens), Rates())
    lookup.look(tokens, count)
    return list(lookup.draft)


def test_what_followed_the_last_two_tokens_is_drafted() -> None:
    assert look(REPEATS, 3) == [3, 4, 5]
    assert look(STRANGE, 3) == []
    assert look((1,), 3) == []
    assert look((), 3) == []


def test_the_latest_occurrence_counts() -> None:
    assert look((1, 2, 3, 1, 2, 7, 1, 2), 1) == [7]


def test_a_repetition_goes_on() -> None:
    assert look((8, 1, 2, 1, 2), 5) == [1, 2, 1, 2, 1]
    assert look((8, 6, 6, 6), 4) == [6, 6, 6, 6]


def test_new_tokens_are_found_too() -> None:
    lookup, tokens = Lookup(4, Rates()), [1, 2, 3, 4]
    lookup.look(tokens, 2)
    assert lookup.draft == ()
    tokens += [1, 2]
    lookup.look(tokens, 2)
    assert lookup.draft == [3, 4]
    tokens += [9, 1, 2]
    lookup.look(tokens, 1)
    assert lookup.draft == [9]


def test_the_longer_what_repeats_the_likelier_the_draft() -> None:
    common = Rates()
    lookup = Lookup(0, common)
    for _ in range(20):
        lookup.look((7, 8, 9, 1, 2, 3, 7, 8, 9), 2)
        assert lookup.match == 3
        lookup.judge([1])
        lookup.look((5, 8, 9, 1, 2, 3, 7, 8, 9), 2)
        assert lookup.match == 2
        lookup.judge([4])
    assert lookup.chance(0) == 0  # nothing is drafted
    lookup.look((7, 8, 9, 1, 2, 3, 7, 8, 9), 2)
    assert lookup.chance(0) > 0.9
    assert lookup.chance(1) == 0.5  # after four that are the same: not seen yet
    assert lookup.chance(2) == 0
    lookup.look((5, 8, 9, 1, 2, 3, 7, 8, 9), 2)
    assert lookup.chance(0) < 0.1
    assert 0.4 < common.of(2) < 0.5 < common.of(3) < 0.6


def test_the_end_of_a_long_prompt_is_searched() -> None:
    early = (1, 2, 3, *range(100, 100 + DEFAULT.look_back), 1, 2)
    assert look(early, 1) == []


# When


def sequences(*prompts: tuple[int, ...]) -> list[Sequence]:
    return [
        Sequence(EngineRequest(id=str(i), prompt=prompt, max_tokens=50), 0.0, (0.0, i))
        for i, prompt in enumerate(prompts)
    ]


class Timed(Speculation):
    """With its own times, to learn into."""

    def __init__(self, token_s: float | None) -> None:
        self.times = StepTimes()
        self.times.token_s = token_s
        super().__init__(4, self.times)

    def learn(self, rows: int, seconds: float, *, reused: bool) -> None:
        self.times.learn(StepShape(decodes=rows, rows=rows, reused=reused), seconds)


def speculation(seconds: dict[int, float], token_s: float | None = 0.001) -> Timed:
    made = Timed(token_s)
    for rows, each in seconds.items():
        for _ in range(DEFAULT.known_after + DEFAULT.settling_steps + 1):
            made.learn(rows, each, reused=True)
    return made


def drafts(made: Speculation, decoding: list[Sequence], room: int = 9, spare: int = 99) -> list[list[int]]:
    found = made.draft(decoding, [room] * len(decoding), spare)
    return [list(draft) for draft in found]


def test_on_a_device_where_rows_cost_nothing_everything_is_drafted() -> None:
    flat = speculation({1: 0.01, 2: 0.01, 3: 0.01, 4: 0.01, 5: 0.01})
    assert drafts(flat, sequences(REPEATS)) == [[3, 4, 5, 1]]


def test_nothing_is_drafted_where_two_rows_take_twice_as_long() -> None:
    linear = speculation({1: 0.01, 2: 0.02, 3: 0.03, 4: 0.04, 5: 0.05})
    assert drafts(linear, sequences(REPEATS)) == [[]]


def test_the_width_is_where_a_group_of_rows_ends() -> None:
    groups = speculation({1: 0.006, 2: 0.0100, 3: 0.0101, 4: 0.0102, 5: 0.020})
    made = sequences(REPEATS)
    drafts(groups, made)
    for _ in range(40):
        groups.judge(made[0], [3, 4, 5, 1])
        assert drafts(groups, made)[0] in ([], [3, 4, 5])
    assert drafts(groups, made) == [[3, 4, 5]]


def test_nothing_is_known_before_the_first_steps() -> None:
    assert drafts(speculation({}), sequences(REPEATS)) == [[]]
    assert drafts(speculation({1: 0.01}, token_s=None), sequences(REPEATS)) == [[]]


def test_rows_never_measured_are_tried_where_they_could_pay_and_then_judged_by_their_cost() -> None:
    made = speculation({1: 0.01})
    repeating = sequences(REPEATS)
    tried = drafts(made, repeating)[0]
    assert tried
    for _ in range(DEFAULT.known_after + 1):
        for rows in range(2, 6):
            made.learn(rows, 0.01 * rows, reused=True)
    assert drafts(made, repeating) == [[]]


def test_a_sequence_that_was_drafted_wrong_is_left_alone_until_its_drafts_are_right() -> None:
    made = speculation({1: 0.010, 2: 0.014, 3: 0.018, 4: 0.022, 5: 0.026})
    repeating = sequences(REPEATS)
    assert drafts(made, repeating) != [[]]
    for _ in range(30):
        made.judge(repeating[0], [99])
        shown = drafts(made, repeating)
    assert shown == [[]]
    for _ in range(30):
        made.judge(repeating[0], [3, 4])  # judged though they were not computed
        shown = drafts(made, repeating)
    assert shown != [[]]


def test_all_have_equally_many() -> None:
    flat = speculation(dict.fromkeys((2, 4, 6, 8, 10), 0.01))
    found = drafts(flat, sequences(REPEATS, STRANGE))
    assert found[0] == [3, 4, 5, 1]
    assert len(found[1]) == 4


def test_room_is_kept_to() -> None:
    flat = speculation(dict.fromkeys(range(1, 12), 0.01))
    assert drafts(flat, sequences(REPEATS), room=1) == [[3]]
    assert drafts(flat, sequences(REPEATS), room=0) == [[]]
    assert drafts(flat, sequences(REPEATS, REPEATS), spare=5) == [[3, 4], [3, 4]]
    assert drafts(flat, sequences(REPEATS, REPEATS), spare=1) == [[], []]
    assert flat.draft(sequences(REPEATS, STRANGE), [9, 2], 99)[1] == [0, 0]
    assert flat.draft(sequences(REPEATS, STRANGE), [9, 0], 99) == [(), ()]


def test_where_changing_the_number_of_rows_is_dear_it_changes_seldom() -> None:
    """Another number means another graph: waiting a while, or wrong drafts for a while, may be cheaper."""
    made = speculation({1: 0.0100, 5: 0.0101})
    for _ in range(100):
        for rows in (5, 1):
            made.learn(rows, 0.013, reused=False)
            made.learn(rows, 0.012, reused=True)
            made.learn(rows, 0.010, reused=True)
    repeating, strange = sequences(REPEATS, STRANGE)
    widths = [len(drafts(made, [repeating])[0]) for _ in range(4)]
    assert widths == [0, 4, 4, 4]
    widths = [len(drafts(made, [strange])[0]) for _ in range(200)]
    assert 10 < widths.index(0) < 150
    assert not any(widths[widths.index(0) :])


def test_rows_never_measured_are_estimated_from_their_neighbours() -> None:
    made = RowTimes()
    for _ in range(DEFAULT.known_after + 1):
        made.learn(2, 0.010)
        made.learn(8, 0.016)
    assert made.estimate(1, 0.1) is None
    assert made.estimate(2, 0.1) == 0.010
    assert made.estimate(4, 0.1) == pytest.approx(0.012)
    assert made.estimate(10, 0.1) == pytest.approx(0.216)
