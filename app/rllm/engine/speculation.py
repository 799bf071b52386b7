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

MARGIN = 0.03
"""Part of a step's time that a change of the number of guesses must gain: less is noise."""
SETTLING = 3
"""Steps with another number of rows until nothing is built any more: llama.cpp's graph, then CUDA's."""
_SMOOTHING = 0.1
_MOST_CHANGE_S = 0.05
_FILLER = 0


class Speculation:
    """What to guess in each step of decodes, for all sequences of one scheduler."""

    def __init__(self, most: int) -> None:
        """``most`` guesses for one sequence in one step."""
        self._most = most
        self._rates = Rates()
        self._costs = RowCosts()
        self._change_s = 0.0
        """What the first steps with another number of rows take longer, together."""
        self._longer_s = 0.0
        """The same of the present number, so far."""
        self._rows = self._steps = 0
        """Of the last step, and how many there were with that number before it."""
        self._settled: set[int] = set()
        """Numbers of rows that were timed when nothing was new any more."""
        self._width = 0
        """Guesses for each sequence, in the last step."""
        self._forgone_s = [0.0] * (most + 1)
        """For each width what it would have gained over the present one, since it last seemed to lose."""

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
        if self._width == 0 and not any(lookup.guess for lookup in found):
            return [()] * count
        width = self._choose(found, most, row_s)
        return [[*lookup.guess[:width], *[_FILLER] * (width - len(lookup.guess))] for lookup in found]

    def _look(self, sequence: Sequence) -> Lookup:
        if sequence.lookup is None:
            sequence.lookup = Lookup(len(sequence.tokens), self._rates)
        sequence.lookup.look(sequence.tokens, self._most)
        return sequence.lookup

    def _choose(self, found: SequenceOf[Lookup], most: int, row_s: float | None) -> int:
        """How many guesses for each.

        The number changes when what was forgone by not changing exceeds what the change costs: at once where
        a guess gains much, after some steps where each gains little, and not for every step without a guess
        (Page's cumulative sum test, Biometrika 41, 1954).
        """
        gains = self._gains(found, most, row_s)
        now = min(self._width, len(gains) - 1)
        for width in range(len(self._forgone_s)):
            gain = gains[width] - gains[now] if width < len(gains) else 0.0
            self._forgone_s[width] = max(0.0, self._forgone_s[width] + gain) if gain else 0.0
        best = max(range(len(gains)), key=self._forgone_s.__getitem__)
        changes = 1 if now else 2  # there and back again
        noise_s = MARGIN * (self._costs.seconds(len(found)) or 0.0)
        if self._forgone_s[best] > changes * self._change_s + noise_s:
            now = best
            self._forgone_s = [0.0] * len(self._forgone_s)
        self._width = now
        return now

    def _gains(self, found: SequenceOf[Lookup], most: int, row_s: float | None) -> list[float]:
        """For each number of guesses up to ``most`` the seconds that a step with them saves."""
        count = len(found)
        alone_s = self._costs.seconds(count)
        if alone_s is None or row_s is None:
            return [0.0]
        gains = [0.0]
        expected = float(count)
        chances = [1.0] * count
        for width in range(1, most + 1):
            for i, lookup in enumerate(found):
                chances[i] *= lookup.chance(width - 1)
            expected += sum(chances)
            seconds = self._costs.estimate(count * (1 + width), row_s) or 0.0
            gains.append(alone_s * expected / count - seconds)
        best = max(range(1, len(gains)), key=gains.__getitem__)
        if self._width == 0 and gains[best] <= 0:
            self._costs.doubt(count * (1 + best))
        return gains

    def judge(self, sequence: Sequence, drawn: SequenceOf[int]) -> None:
        """What was drawn, in the step after `guesses`."""
        if sequence.lookup is not None:
            sequence.lookup.judge(drawn)

    def learn(self, rows: int, seconds: float, *, reused: bool) -> None:
        """A step of decodes with so many rows took that long; ``reused``: it built no graph."""
        if reused and rows == self._rows:
            self._steps += 1
        else:
            self._note_change()
            self._rows, self._steps, self._longer_s = rows, 0, 0.0
        usual = self._costs.seconds(rows)
        if self._steps >= SETTLING:
            self._costs.learn(rows, seconds)
            self._settled.add(rows)
        elif rows not in self._settled:  # too seldom in a row to know better
            own_s = seconds if self._steps else max(seconds - self._change_s, seconds / 2)
            self._costs.learn(rows, own_s)
        elif usual is not None:
            self._longer_s += min(max(0.0, seconds - usual), _MOST_CHANGE_S)
            if self._steps == SETTLING - 1:
                self._note_change()

    def _note_change(self) -> None:
        if self._longer_s:
            self._change_s += _SMOOTHING * (self._longer_s - self._change_s)
        self._longer_s = 0.0
