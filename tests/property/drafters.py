"""Drafters for tests of the scheduler, which never ask whether it pays."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

from rllm.engine.drafts import Speculation
from rllm.engine.lookup import Lookup
from rllm.engine.sequence import Sequence
from rllm.engine.times import StepTimes
from tests.property.simulator import successor


class Eager(Speculation):
    """Drafts whatever was found, for as many as there is room for."""

    def __init__(self, most: int) -> None:
        super().__init__(most, StepTimes())

    def _choose(self, found: SequenceOf[Lookup], most: int) -> int:
        return most


class Clairvoyant(Eager):
    """Knows what will be drawn, and is wrong about every fifth token all the same."""

    def draft(
        self, decoding: SequenceOf[Sequence], rooms: SequenceOf[int], spare: int
    ) -> SequenceOf[SequenceOf[int]]:
        share = spare // len(decoding)
        return [
            self._foresee(sequence, min(room, share, self._most))
            for sequence, room in zip(decoding, rooms, strict=True)
        ]

    @staticmethod
    def _foresee(sequence: Sequence, count: int) -> list[int]:
        tokens, request = list(sequence.tokens), sequence.request
        for at in range(count):
            banned = request.ignore_eos or sequence.num_output + at < request.min_tokens
            token = successor(tokens, banned=banned)
            tokens.append(token if len(tokens) % 5 else 1 + token % 4)
        return tokens[len(sequence.tokens) :]
