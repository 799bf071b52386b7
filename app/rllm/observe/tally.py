"""Observations of one histogram, noted when they are made and counted when somebody looks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from prometheus_client import Histogram


class Tally:
    """`Histogram.observe` costs a lock and a search each time; a whole list at once costs little more.

    The library has no way to add many: what is used of it is not public, and a test compares with `observe`.
    """

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._values: list[float] = []
        self.add = self._values.append

    def __len__(self) -> int:
        """Observations that are not in the histogram yet."""
        return len(self._values)

    def flush(self) -> None:
        histogram, bounds = self._histogram, self._histogram._upper_bounds
        if self._values:
            histogram._sum.inc(sum(self._values))
            for index, count in Counter(bisect_left(bounds, value) for value in self._values).items():
                histogram._buckets[index].inc(count)
            self._values.clear()
