"""Which rows are added to keep the decodes of a split cache in one piece."""

from __future__ import annotations

from rllm.backends.llama.padding import padding
from rllm.engine.port import Chunk


def decodes(*seqs: int) -> list[Chunk]:
    return [Chunk(seq, (5,), 10, sample=True) for seq in seqs]


def test_every_gap_gets_one_token_after_what_its_sequence_holds() -> None:
    pads = padding(decodes(0, 1, 3, 5), lambda seq: 7 * seq, 100)
    assert pads == [Chunk(2, (0,), 14, sample=True), Chunk(4, (0,), 28, sample=True)]


def test_neighbours_need_none() -> None:
    assert padding(decodes(2, 3, 4), lambda seq: 0, 100) == []


def test_a_sequence_without_room_stays_a_gap() -> None:
    assert padding(decodes(0, 1, 3), lambda seq: 100, 100) == []


def test_gaps_wider_than_the_step_do_not_pay() -> None:
    assert padding(decodes(0, 9), lambda seq: 0, 100) == []


def test_prefills_are_left_alone() -> None:
    chunks = [Chunk(0, (1, 2), 0, sample=True), *decodes(2)]
    assert padding(chunks, lambda seq: 0, 100) == []
