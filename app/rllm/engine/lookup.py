"""What may follow in a text that repeats itself: the drafts of prompt lookup decoding.

Source: A. Saxena, Prompt Lookup Decoding, 2023, https://github.com/apoorvumang/prompt-lookup-decoding. What
followed the last tokens when they occurred before, in the prompt or in the answer, may follow again: the
more of them are the same, the likelier.
"""

from __future__ import annotations

from collections.abc import Sequence

from rllm.engine.tuning import DEFAULT, Tuning

_SHORTEST = 2


class Rates:
    """How often drafts were right that followed so many tokens which were the same as before."""

    __slots__ = ("_rates", "_weight", "tuning")

    def __init__(
        self, tuning: Tuning = DEFAULT, weight: float | None = None, rates: Sequence[float] = ()
    ) -> None:
        self.tuning = tuning
        self._rates = list(rates) or [tuning.first_rate] * (tuning.longest_match + 1)
        self._weight = tuning.common_weight if weight is None else weight

    def for_one_sequence(self) -> Rates:
        """These to begin with, and quicker to change."""
        return Rates(self.tuning, self.tuning.own_weight, self._rates)

    def of(self, match: int) -> float:
        return self._rates[min(match, self.tuning.longest_match)]

    def judge(self, match: int, right: bool) -> None:
        at = min(match, self.tuning.longest_match)
        self._rates[at] += self._weight * (right - self._rates[at])


class Lookup:
    """Where each pair of tokens of one sequence occurred last, and how good drafts from that were."""

    __slots__ = ("_after", "_common", "_num_indexed", "_own", "draft", "match")

    def __init__(self, num_tokens: int, common: Rates) -> None:
        self._after: dict[tuple[int, int], int] = {}
        self._num_indexed = max(0, num_tokens - common.tuning.look_back)
        self._common = common
        self._own = common.for_one_sequence()
        self.draft: Sequence[int] = ()
        """For the step to come."""
        self.match = 0
        """How many tokens before the draft are the same as before."""

    def look(self, tokens: Sequence[int], count: int) -> None:
        """Find a draft of ``count`` tokens, or none."""
        end = len(tokens)
        for at in range(self._num_indexed, end - _SHORTEST):
            self._after[tokens[at], tokens[at + 1]] = at + _SHORTEST
        self._num_indexed = max(self._num_indexed, end - _SHORTEST)
        start = self._after.get((tokens[-2], tokens[-1])) if end > 1 else None
        if start is None:
            self.draft = ()
            return
        match, longest = _SHORTEST, self._common.tuning.longest_match
        while match < longest and match < start and tokens[start - match - 1] == tokens[end - match - 1]:
            match += 1
        draft: list[int] = []
        for at in range(start, start + count):  # a repetition shorter than that goes on in the draft itself
            draft.append(tokens[at] if at < end else draft[at - end])
        self.draft, self.match = draft, match

    def chance(self, at: int) -> float:
        """That draft number ``at`` is right when those before it are; 0 where there is none."""
        return self._own.of(self.match + at) if at < len(self.draft) else 0.0

    def judge(self, drawn: Sequence[int]) -> None:
        """Compare the draft, computed or not, with what was drawn, up to the first difference."""
        for at, (draft, token) in enumerate(zip(self.draft, drawn, strict=False)):
            right = draft == token
            self._own.judge(self.match + at, right)
            self._common.judge(self.match + at, right)
            if not right:
                break
        self.draft = ()
