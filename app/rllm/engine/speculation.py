"""Guessing tokens before they are computed, where checking several at once pays.

Summaries, edited code and quotations repeat their prompt, and small models repeat themselves: guesses come
from there (`rllm.engine.lookup`). A step computes the sure token and the guesses side by side, and every
guess that is drawn as guessed has cost no step of its own. What is drawn does not depend on what was guessed:
the same draws are made from the same logits, as far as these are the same for a token that is computed beside
others.

Whether it pays is learned: how often guesses are right, what steps of so many rows take, and what it costs
to change that number, which makes llama.cpp build a graph. Every sequence of a step gets equally many
guesses, if need be wrong ones: in a split cache a step would cost as much as several otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

from rllm.engine.lookup import Lookup, Rates
from rllm.engine.row_costs import RowCosts
from rllm.engine.sequence import Sequence

GAIN = 1.03
"""A step with guesses must bring so many times the tokens a second of one without: less is noise."""
_SMOOTHING = 0.05
_FILLER = 0


class Speculation:
    """What to guess in each step of decodes, for all sequences of one scheduler."""

    def __init__(self, most: int) -> None:
        """``most`` guesses for one sequence in one step."""
        self._most = most
        self._rates = Rates()
        self._costs = RowCosts()
        self._change_s = 0.0
        """What a step takes longer when the one before had another number of rows."""
        self._last_rows = 0

    def guesses(
        self, decoding: SequenceOf[Sequence], rooms: SequenceOf[int], spare: int, row_s: float | None
    ) -> list[SequenceOf[int]]:
        """For each of ``decoding`` what to compute beside its last token; nothing where that pays best.

        Args:
            rooms: how many guesses each sequence has room for.
            spare: how many there is room for in all.
            row_s: the least that a row can add to a step; None: not known yet.
        """
        count = len(decoding)
        most = min(self._most, spare // count, *rooms)
        if most <= 0:
            return [()] * count
        found = [self._look(sequence) for sequence in decoding]
        if self._last_rows == count and not any(lookup.guess for lookup in found):
            return [()] * count
        width = self._best_width(found, most, row_s)
        return [[*lookup.guess[:width], *[_FILLER] * (width - len(lookup.guess))] for lookup in found]

    def _look(self, sequence: Sequence) -> Lookup:
        if sequence.lookup is None:
            sequence.lookup = Lookup(len(sequence.tokens), self._rates)
        sequence.lookup.look(sequence.tokens, self._most)
        return sequence.lookup

    def _best_width(self, found: SequenceOf[Lookup], most: int, row_s: float | None) -> int:
        """How many guesses for each bring the most tokens a second; 0 where that is not sure."""
        count = len(found)
        alone_s = self._costs.seconds(count)
        if alone_s is None or row_s is None:
            return 0
        best, most_a_second = 0, GAIN * count / (alone_s + self._change(count))
        refused, refused_a_second = count, 0.0
        expected = float(count)
        chances = [1.0] * count
        for width in range(1, most + 1):
            for i, lookup in enumerate(found):
                chances[i] *= lookup.chance(width - 1)
            expected += sum(chances)
            rows = count * (1 + width)
            seconds = self._costs.seconds(rows)
            if seconds is None:  # tried a few times if it could pay at the very best
                seconds = alone_s + (rows - count) * row_s
            seconds += self._change(rows)
            if self._last_rows == count:
                seconds += self._change_s  # on the way back
            if expected / seconds > most_a_second:
                best, most_a_second = width, expected / seconds
            elif expected / seconds > refused_a_second:
                refused, refused_a_second = rows, expected / seconds
        if best == 0:
            self._costs.doubt(refused)
        return best

    def _change(self, rows: int) -> float:
        return self._change_s if rows != self._last_rows else 0.0

    def judge(self, sequence: Sequence, drawn: SequenceOf[int]) -> None:
        """What was drawn, in the step after `guesses`."""
        if sequence.lookup is not None:
            sequence.lookup.judge(drawn)

    def learn(self, rows: int, seconds: float) -> None:
        """A step of decodes with so many rows took that long."""
        if rows == self._last_rows:
            self._costs.learn(rows, seconds)
            return
        self._last_rows = rows
        usual = self._costs.seconds(rows)
        if usual is not None:
            longer = min(max(0.0, seconds - usual), usual)
            self._change_s += _SMOOTHING * (longer - self._change_s)
        self._costs.learn(rows, max(seconds - self._change_s, seconds / 2))
