"""Which rows are added to keep the decodes of a split cache in one piece."""

from __future__ import annotations

from rllm.backends.llama.padding import cheapest, padding
from rllm.engine.port import Chunk
from rllm.engine.times import RowTimes
from rllm.engine.tuning import DEFAULT


def decodes(*seqs: int) -> list[Chunk]:
    return [Chunk(seq, (5,), 10, sample=True) for seq in seqs]


def test_every_gap_gets_one_token_after_what_its_sequence_holds() -> None:
    pads = padding(decodes(0, 1, 3, 5), lambda seq: 7 * seq, 100, 16, RowTimes())
    assert pads == [Chunk(2, (0,), 14, sample=True), Chunk(4, (0,), 28, sample=True)]


def test_neighbours_need_none() -> None:
    assert padding(decodes(2, 3, 4), lambda seq: 0, 100, 16, RowTimes()) == []


def test_a_sequence_without_room_stays_a_gap() -> None:
    assert padding(decodes(0, 1, 3), lambda seq: 100, 100, 16, RowTimes()) == []


def test_gaps_wider_than_the_step_do_not_pay() -> None:
    assert padding(decodes(0, 9), lambda seq: 0, 100, 16, RowTimes()) == []


def test_prefills_are_left_alone() -> None:
    chunks = [Chunk(0, (1, 2), 0, sample=True), *decodes(2)]
    assert padding(chunks, lambda seq: 0, 100, 16, RowTimes()) == []


def costs(seconds: dict[int, float]) -> RowTimes:
    found = RowTimes()
    for rows, each in seconds.items():
        for _ in range(DEFAULT.known_after + 1):
            found.learn(rows, each)
    return found


def test_a_group_is_completed_where_that_was_quicker() -> None:
    quicker = costs({7: 0.020, 8: 0.018})
    pads = padding(decodes(*range(7)), lambda seq: 3, 100, 16, quicker)
    assert pads == [Chunk(7, (0,), 3, sample=True)]
    pads = padding(decodes(*range(9, 16)), lambda seq: 3, 100, 16, quicker)
    assert pads == [Chunk(8, (0,), 3, sample=True)]  # no id is left above them


def test_a_group_is_completed_beside_a_gap() -> None:
    quicker = costs({6: 0.020, 7: 0.021, 8: 0.018})
    pads = padding(decodes(0, 1, 2, 4, 5), lambda seq: 0, 100, 16, quicker)
    assert [pad.seq for pad in pads] == [3, 6, 7]


def test_half_a_group_is_not_added() -> None:
    quicker = costs({6: 0.020, 7: 0.021, 8: 0.018})
    full = {6: 100, 13: 100}
    six = decodes(*range(7, 13))
    assert padding(six, lambda seq: full.get(seq, 0), 100, 16, quicker) == []
    del full[6]
    pads = padding(six, lambda seq: full.get(seq, 0), 100, 16, quicker)
    assert [pad.seq for pad in pads] == [6, 5]  # no room above, enough below


def test_nothing_is_added_on_suspicion() -> None:
    few = RowTimes()
    few.learn(7, 0.020)
    few.learn(8, 0.001)
    assert cheapest(7, few) == 7  # seen once, which may have been the exception
    assert cheapest(7, costs({7: 0.0182, 8: 0.0180})) == 7  # within the noise
    assert cheapest(7, costs({7: 0.020})) == 7
    assert cheapest(3, costs({3: 0.020, 7: 0.001})) == 3  # too far


def test_a_number_that_was_slow_once_is_tried_again() -> None:
    wrong = costs({7: 0.020, 8: 0.018})
    tries = 0
    while cheapest(7, wrong) == 8:
        tries += 1
    assert 10 < tries < 1000
