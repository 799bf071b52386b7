"""What may follow in a text that repeats itself: the guesses of prompt lookup decoding.

Source: A. Saxena, Prompt Lookup Decoding, 2023, https://github.com/apoorvumang/prompt-lookup-decoding. What
followed the last tokens when they occurred before, in the prompt or in the answer, may follow again: the
more of them are the same, the likelier.
"""

from __future__ import annotations

from collections.abc import Sequence

LOOK_BACK = 8192
"""Tokens of a prompt that are searched."""
LONGEST = 8
"""Matches longer than this are as good as one of this length."""
_SHORTEST = 2
_FIRST_RATE = 0.5
_OWN, _COMMON = 0.1, 0.01
"""How much a guess changes what is expected of its sequence's guesses, and of those of sequences to come."""


class Rates:
    """How often guesses were right that followed so many tokens which were the same as before."""

    __slots__ = ("_rates", "_weight")

    def __init__(
        self, weight: float = _COMMON, rates: Sequence[float] = (_FIRST_RATE,) * (LONGEST + 1)
    ) -> None:
        self._rates = list(rates)
        self._weight = weight

    def for_one_sequence(self) -> Rates:
        """These to begin with, and quicker to change."""
        return Rates(_OWN, self._rates)

    def of(self, match: int) -> float:
        return self._rates[min(match, LONGEST)]

    def judge(self, match: int, right: bool) -> None:
        at = min(match, LONGEST)
        self._rates[at] += self._weight * (right - self._rates[at])


class Lookup:
    """Where each pair of tokens of one sequence occurred last, and how good guesses from that were."""

    __slots__ = ("_after", "_common", "_num_indexed", "_own", "guess", "match")

    def __init__(self, num_tokens: int, common: Rates) -> None:
        self._after: dict[tuple[int, int], int] = {}
        self._num_indexed = max(0, num_tokens - LOOK_BACK)
        self._common = common
        self._own = common.for_one_sequence()
        self.guess: Sequence[int] = ()
        """For the step to come."""
        self.match = 0
        """How many tokens before the guess are the same as before."""

    def look(self, tokens: Sequence[int], count: int) -> None:
        """Find a guess of ``count`` tokens, or none."""
        end = len(tokens)
        for at in range(self._num_indexed, end - _SHORTEST):
            self._after[tokens[at], tokens[at + 1]] = at + _SHORTEST
        self._num_indexed = max(self._num_indexed, end - _SHORTEST)
        start = self._after.get((tokens[-2], tokens[-1])) if end > 1 else None
        if start is None:
            self.guess = ()
            return
        match = _SHORTEST
        while match < LONGEST and match < start and tokens[start - match - 1] == tokens[end - match - 1]:
            match += 1
        guess: list[int] = []
        for at in range(start, start + count):  # a repetition shorter than that goes on in the guess itself
            guess.append(tokens[at] if at < end else guess[at - end])
        self.guess, self.match = guess, match

    def chance(self, at: int) -> float:
        """That guess number ``at`` is right when those before it are; 0 where there is none."""
        return self._own.of(self.match + at) if at < len(self.guess) else 0.0

    def judge(self, drawn: Sequence[int]) -> None:
        """Compare the guess, computed or not, with what was drawn, up to the first difference."""
        for at, (guess, token) in enumerate(zip(self.guess, drawn, strict=False)):
            right = guess == token
            self._own.judge(self.match + at, right)
            self._common.judge(self.match + at, right)
            if not right:
                break
        self.guess = ()
