"""Numbers from numbers: percentiles and bootstrap intervals. No files, no records, no clock.

Every random draw comes from a generator seeded by its caller, so that the same data give the same
interval to the last bit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Maps a matrix of resamples, one per row, to one value per row."""

PERCENTILES = (50, 90, 95, 99)
RESAMPLES = 1000
_LEVEL = 95.0


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with what is known about its error. ``interval`` comes from resampling within runs,
    ``spread`` is the smallest and largest value among repeats; either may be unknown."""

    value: float
    interval: Interval | None = None
    spread: Interval | None = None
    repeats: int = 1


def draws_of(what: str) -> np.random.Generator:
    """The random stream that belongs to ``what``: the same draws every time."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(what.encode()).digest()[:8]))


def percentile(q: float) -> Statistic:
    return lambda rows: np.asarray(np.percentile(rows, q, axis=-1), dtype=np.float64)


def mean(rows: Array) -> Array:
    return np.asarray(rows.mean(axis=-1), dtype=np.float64)


def resample(values: Array, statistic: Statistic, rng: np.random.Generator, count: int = RESAMPLES) -> Array:
    """``count`` values of the statistic, each over as many draws with replacement as there are values.
    In slices, so that memory stays bounded."""
    size = len(values)
    rows_at_once = max(1, 2_000_000 // max(size, 1))
    out = []
    for begin in range(0, count, rows_at_once):
        rows = min(rows_at_once, count - begin)
        out.append(statistic(values[rng.integers(size, size=(rows, size))]))
    return np.concatenate(out)


def resample_clusters(
    clusters: Sequence[Array], q: float, rng: np.random.Generator, count: int = RESAMPLES // 5
) -> Array:
    """Percentile of all values when whole clusters (the gaps of one request) are drawn with replacement:
    gaps of one request resemble each other, and must not count as independent."""
    values = np.concatenate(clusters)
    owner = np.repeat(np.arange(len(clusters)), [len(cluster) for cluster in clusters])
    order = np.argsort(values, kind="stable")
    values, owner = values[order], owner[order]
    out = np.empty(count)
    for row in range(count):
        weight = np.bincount(rng.integers(len(clusters), size=len(clusters)), minlength=len(clusters))
        cumulative = np.cumsum(weight[owner])
        rank = np.searchsorted(cumulative, q / 100 * cumulative[-1], side="left")
        out[row] = values[min(int(rank), len(values) - 1)]
    return out


def interval(draws: Array) -> Interval:
    tail = (100 - _LEVEL) / 2
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Interval(float(low), float(high))


def over_repeats(values: Sequence[float] | Array) -> float:
    """The one rule for figures of several repeats or pairs: their median. What happens to one of them, a
    neighbour's burst on the machine say, then moves the figure as little as it can."""
    return float(np.median(values))


def median_interval(values: Sequence[float] | Array) -> Interval | None:
    """95 % at least for the median of what ``values`` were drawn from, whatever its distribution: between two
    of the values, by the sign test (Conover, Practical Nonparametric Statistics, 3.2). None for fewer than
    six: then not even the smallest and the largest enclose it often enough. A bootstrap of so few would
    claim 95 % and hold less (seven: 88 %)."""
    ordered, below, tail = sorted(values), 0, 0.0
    count = len(ordered)
    while (tail := tail + math.comb(count, below) / 2**count) <= (1 - _LEVEL / 100) / 2:
        below += 1
    return Interval(float(ordered[below - 1]), float(ordered[count - below])) if below else None


def estimate(values: Sequence[float], draws: Sequence[Array] | None) -> Estimate:
    """Over repeats. ``draws`` are the resamples of each repeat, in step."""
    found = np.asarray(values, dtype=np.float64)
    spread = Interval(float(found.min()), float(found.max())) if len(found) > 1 else None
    inside = None
    if draws:
        inside = interval(np.median(np.stack(draws), axis=0))
    return Estimate(over_repeats(found), inside, spread, len(found))


def ratio(new: Sequence[Array], old: Sequence[Array], rng: np.random.Generator) -> Interval:
    """Interval of median(new) / median(old), repeats drawn with replacement and then their resamples."""

    def draw(side: Sequence[Array]) -> Array:
        stack = np.stack(side)
        repeats, count = stack.shape
        chosen = rng.integers(repeats, size=(RESAMPLES, repeats))
        column = rng.integers(count, size=(RESAMPLES, repeats))
        return np.asarray(np.median(stack[chosen, column], axis=1), dtype=np.float64)

    return interval(draw(new) / draw(old))
