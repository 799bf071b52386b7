"""A race between candidates over several points, in turns: losers drop out as soon as that is sure.

Pure: it is told times and says who goes on. A candidate's figure against another is the weighted mean of
the logarithms of their time ratios in the same round, so that what slows the machine for a while slows both
sides of every ratio; its interval is Student's t over the rounds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rllm.tuning.candidates import Candidate
from rllm.tuning.points import Point

_T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Two-sided 95 % quantiles of Student's t, by the number of values."""
WORTH = 0.02
"""A candidate must surely be faster than the rule, and by this share, to replace it: less is not worth being
different."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Time of the other over time of the one: above 1 the one is faster."""

    value: float
    low: float
    high: float


@dataclass
class Race:
    candidates: list[Candidate]
    """The first is the rule that others must beat."""
    weights: Mapping[Point, float]
    times: dict[Candidate, list[dict[Point, float]]] = field(default_factory=dict)
    """By candidate and round: seconds by point."""
    out: dict[Candidate, str] = field(default_factory=dict)
    """Why, by candidate."""

    @property
    def running(self) -> list[Candidate]:
        return [candidate for candidate in self.candidates if candidate not in self.out]

    def add(self, candidate: Candidate, times: dict[Point, float]) -> None:
        """A round of one candidate; every running one has the same number of rounds when `judge` is
        called."""
        self.times.setdefault(candidate, []).append(times)

    def fail(self, candidate: Candidate, why: str) -> None:
        self.out[candidate] = why

    def ratio(self, one: Candidate, other: Candidate) -> Ratio:
        """Over the rounds that both have."""
        rounds = zip(self.times[one], self.times[other], strict=False)
        logs = [self._log_ratio(mine, theirs) for mine, theirs in rounds]
        mean = statistics.fmean(logs)
        if len(logs) < 2:
            return Ratio(math.exp(mean), 0.0, math.inf)
        spread = _T95.get(len(logs), 2.2) * statistics.stdev(logs) / math.sqrt(len(logs))
        return Ratio(math.exp(mean), math.exp(mean - spread), math.exp(mean + spread))

    def _log_ratio(self, mine: Mapping[Point, float], theirs: Mapping[Point, float]) -> float:
        points = [point for point in self.weights if point in mine and point in theirs]
        total = sum(self.weights[point] for point in points)
        return sum(self.weights[p] * math.log(theirs[p] / mine[p]) for p in points) / total

    def judge(self) -> Candidate | None:
        """Drop who is surely slower than the leader; the winner once nobody else is left. Three rounds at
        least are needed to drop anybody."""
        leader = self.leader()
        for candidate in self.running:
            if candidate == leader or len(self.times[candidate]) < 3:
                continue
            if (ratio := self.ratio(leader, candidate)).low > 1:
                self.out[candidate] = f"{ratio.value:.2f} times as slow as the best"
        return leader if len(self.running) == 1 else None

    def leader(self) -> Candidate:
        """The fastest that is still running; where all failed, the first."""
        running = [candidate for candidate in self.running if self.times.get(candidate)]
        if not running:
            return self.candidates[0]
        return max(running, key=lambda candidate: self.ratio(candidate, running[0]).value)

    def choice(self) -> Candidate:
        """The leader, or the rule where it is not worth leaving."""
        leader, rule = self.leader(), self.candidates[0]
        if leader == rule or rule not in self.times or self._failed_before(rule):
            return leader
        ratio = self.ratio(leader, rule)
        return leader if ratio.low > 1 and ratio.value >= 1 + WORTH else rule

    def _failed_before(self, candidate: Candidate) -> bool:
        return candidate in self.out and "times as slow" not in self.out[candidate]


def medians(rounds: Sequence[Mapping[Point, float]]) -> dict[Point, float]:
    """Seconds by point, over the rounds."""
    points = {point for times in rounds for point in times}
    return {point: statistics.median([t[point] for t in rounds if point in t]) for point in points}
