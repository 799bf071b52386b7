"""One subject against another, pair by pair: both were measured by turns, so what the machine did meanwhile
happened to both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rllm_bench.figures import stats
from rllm_bench.figures.metrics import CellData
from rllm_bench.figures.names import Slos, figure
from rllm_bench.figures.stats import Interval
from rllm_bench.figures.summary import Result


@dataclass(frozen=True, slots=True)
class Paired:
    """Medians over the pairs, and the median of the pairs' ratios with its 95 % interval, which takes six
    pairs at least. A ratio above 1 means that ours is better, also for times."""

    name: str
    ours: float
    theirs: float
    ratio: float
    interval: Interval | None
    pairs: int

    @property
    def verdict(self) -> str:
        if self.interval is None:
            return "too few pairs"
        if self.interval.holds(1.0):
            return "no difference"
        return "better" if self.ratio > 1 else "worse"


def paired(ours: Result, theirs: Result, name: str, slos: Slos) -> Paired | None:
    """None where one of them lacks the figure, or where it is nothing."""
    sides = [_by_repeat(result, name) for result in (ours, theirs)]
    common = sorted(sides[0].keys() & sides[1].keys())
    mine, other = ([side[repeat] for repeat in common] for side in sides)
    if not common or min(mine) <= 0 or min(other) <= 0:
        return None
    known = figure(name, slos)
    ratios = [known.ratio(a, b) for a, b in zip(mine, other, strict=True)]
    return Paired(
        name,
        stats.over_repeats(mine),
        stats.over_repeats(other),
        stats.over_repeats(ratios),
        stats.median_interval(ratios),
        len(ratios),
    )


def _by_repeat(result: Result, name: str) -> dict[int, float]:
    return {
        cell.record.spec.repeat: values[name]
        for cell, values in zip(result.cells, result.each, strict=True)
        if name in values
    }


def same_answers(ours: Result, theirs: Result) -> tuple[int, int]:
    """How many answers to the same prompts are the same to the letter, of how many."""
    mine, other = _answers(ours.cells), _answers(theirs.cells)
    common = mine.keys() & other.keys()
    return sum(mine[key] == other[key] for key in common), len(common)


def _answers(cells: Sequence[CellData]) -> dict[tuple[int, int, int], str]:
    return {
        (cell.record.spec.repeat, r.index, r.turn): r.text_hash
        for cell in cells
        for r in cell.good
        if r.text_hash is not None
    }
