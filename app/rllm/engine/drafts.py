"""Drafts: tokens that are computed beside the last one of a sequence, before it is known that they follow.

A step computes the last token and its drafts side by side, and every draft that is drawn as drafted has cost
no step of its own. What is drawn does not depend on the drafts: the same draws are made from the same logits,
as far as these are the same for a token that is computed beside others.

What a constraint forces (`StepResult.forced`) is always right and needs no check: such tokens join the
sequence's own, and the next step computes all that is pending.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import Protocol

from rllm.engine.lookup import Lookup, Rates
from rllm.engine.sequence import Sequence
from rllm.engine.times import StepTimes
from rllm.engine.tuning import DEFAULT, Tuning

_FILLER = 0


class Drafter(Protocol):
    def draft(
        self, decoding: SequenceOf[Sequence], rooms: SequenceOf[int], spare: int
    ) -> SequenceOf[SequenceOf[int]]:
        """For each of ``decoding`` what to compute beside its last token; nothing where that pays best.

        Args:
            rooms: how many drafts each sequence has room for.
            spare: how many there is room for in all.
        """
        ...

    def judge(self, sequence: Sequence, drawn: SequenceOf[int]) -> None:
        """What was drawn, in the step after `draft`."""
        ...


class Speculation:
    """Prompt lookup: summaries, edited code and quotations repeat their prompt, and small models themselves.

    Whether it pays is learned: how often drafts are right (`rllm.engine.lookup`), what steps of so many rows
    take, and what it costs to change that number (`rllm.engine.times`). Every sequence of a step gets equally
    many drafts, if need be wrong ones: in a split cache a step would cost as much as several otherwise.
    """

    def __init__(self, most: int, times: StepTimes, tuning: Tuning = DEFAULT) -> None:
        """``most`` drafts for one sequence in one step."""
        self._most = most
        self._times = times
        self._tuning = tuning
        self._rates = Rates(tuning)
        self._width = 0
        """Drafts for each sequence, in the last step."""
        self._forgone_s = [0.0] * (most + 1)
        """For each width what it would have gained over the present one, since it last seemed to lose."""

    def draft(
        self, decoding: SequenceOf[Sequence], rooms: SequenceOf[int], spare: int
    ) -> SequenceOf[SequenceOf[int]]:
        count = len(decoding)
        most = min(self._most, spare // count, *rooms)
        if most <= 0:
            return [()] * count
        found = [self._look(sequence) for sequence in decoding]
        if self._width == 0 and not any(lookup.draft for lookup in found):
            return [()] * count
        width = self._choose(found, most)
        return [[*lookup.draft[:width], *[_FILLER] * (width - len(lookup.draft))] for lookup in found]

    def _look(self, sequence: Sequence) -> Lookup:
        if sequence.lookup is None:
            sequence.lookup = Lookup(len(sequence.tokens), self._rates)
        sequence.lookup.look(sequence.tokens, self._most)
        return sequence.lookup

    def _choose(self, found: SequenceOf[Lookup], most: int) -> int:
        """How many drafts for each.

        The number changes when what was forgone by not changing exceeds what the change costs: at once where
        a draft gains much, after some steps where each gains little, and not for every step without a draft
        (Page's cumulative sum test, Biometrika 41, 1954).
        """
        gains = self._gains(found, most)
        now = min(self._width, len(gains) - 1)
        for width in range(len(self._forgone_s)):
            gain = gains[width] - gains[now] if width < len(gains) else 0.0
            self._forgone_s[width] = max(0.0, self._forgone_s[width] + gain) if gain else 0.0
        best = max(range(len(gains)), key=self._forgone_s.__getitem__)
        changes = 1 if now else 2  # there and back again
        noise_s = self._tuning.draft_margin * (self._times.rows.seconds(len(found)) or 0.0)
        if self._forgone_s[best] > changes * self._times.change.seconds + noise_s:
            now = best
            self._forgone_s = [0.0] * len(self._forgone_s)
        self._width = now
        return now

    def _gains(self, found: SequenceOf[Lookup], most: int) -> list[float]:
        """For each number of drafts up to ``most`` the seconds that a step with them saves."""
        count, rows, row_s = len(found), self._times.rows, self._times.token_s
        alone_s = rows.seconds(count)
        if alone_s is None or row_s is None:
            return [0.0]
        gains = [0.0]
        expected = float(count)
        chances = [1.0] * count
        for width in range(1, most + 1):
            for i, lookup in enumerate(found):
                chances[i] *= lookup.chance(width - 1)
            expected += sum(chances)
            seconds = rows.estimate(count * (1 + width), row_s) or 0.0
            gains.append(alone_s * expected / count - seconds)
        best = max(range(1, len(gains)), key=gains.__getitem__)
        if self._width == 0 and gains[best] <= 0:
            rows.doubt(count * (1 + best))
        return gains

    def judge(self, sequence: Sequence, drawn: SequenceOf[int]) -> None:
        if sequence.lookup is not None:
            sequence.lookup.judge(drawn)
