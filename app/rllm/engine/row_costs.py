"""What a step of so many rows takes on this machine, learned from the steps.

A row is a token that is computed and sampled after. Their number alone does not say how long a step takes:
kernels compute rows in groups, and a GPU takes as long for eight as for one.
"""

from __future__ import annotations

from bisect import bisect, insort

ENOUGH = 3
"""Steps after which a number of rows is known."""
_SMOOTHING = 0.2
_DOUBT = 0.999


class RowCosts:
    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._seen: dict[int, int] = {}
        self._known: list[int] = []
        """Numbers of rows, in order."""

    def learn(self, rows: int, seconds: float) -> None:
        """The first step of its kind builds a graph, and a single one may have been disturbed."""
        if seconds <= 0:
            return
        seen = self._seen[rows] = self._seen.get(rows, 0) + 1
        if seen == 1:
            return
        if seen == ENOUGH + 1:
            insort(self._known, rows)
        before = self._seconds.get(rows, seconds)
        self._seconds[rows] = before + _SMOOTHING * (min(seconds, 2 * before) - before)

    def seconds(self, rows: int) -> float | None:
        """None as long as that is not known."""
        return self._seconds[rows] if self._seen.get(rows, 0) > ENOUGH else None

    def estimate(self, rows: int, row_s: float) -> float | None:
        """Also for a number that was never tried: on the line between its known neighbours; beyond the
        largest as if a row more took ``row_s``. None where none as small is known."""
        if (own := self.seconds(rows)) is not None:
            return own
        at = bisect(self._known, rows)
        if at == 0:
            return None
        lower = self._known[at - 1]
        if at < len(self._known):
            upper = self._known[at]
            row_s = (self._seconds[upper] - self._seconds[lower]) / (upper - lower)
        return self._seconds[lower] + (rows - lower) * row_s

    def doubt(self, rows: int) -> None:
        """Steps of so many rows were avoided. The estimate gets a little better each time: it is not measured
        any more, and one that was wrong once must not stay wrong (as in `rllm.engine.costs`)."""
        if rows in self._seconds:
            self._seconds[rows] *= _DOUBT
