"""Drives a race: opens a depth in every process, times the points in turns, stops when its time is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rllm.backends.llama.speed import Order
from rllm.tuning.candidates import Candidate
from rllm.tuning.points import Point
from rllm.tuning.race import Race
from rllm.tuning.rigs import Rig, RigFailed

FIRST_ROUNDS, MORE_ROUNDS = 3, 4
"""Of everybody, and of those who are left then."""
_STEPS = {1: 8}
_MORE_STEPS = 4
"""Decode steps that are timed together: enough for a clock, few enough for many turns."""
_PROBE = 32
"""Tokens whose time tells whether the rest can be done in time at all."""

Say = Callable[[str], None]


@dataclass
class Outcome:
    race: Race
    rounds: int = 0
    """Complete ones: every running candidate was timed at every point."""
    seconds: float = 0.0
    note: str = ""
    """Why it ended before its time."""
    beside: dict[Candidate, dict[Point, float]] = field(default_factory=dict)
    """Seconds at the points that count nothing, of those who were left."""

    @property
    def winner(self) -> Candidate:
        return self.race.choice() if self.rounds else self.race.candidates[0]


@dataclass
class Tuner:
    candidates: Sequence[Candidate]
    weights: Mapping[Point, float]
    open_rig: Callable[[Candidate], Rig]
    budget_s: float
    more: Sequence[Point] = ()
    """Points that are timed once, for the table. They count nothing."""
    say: Say = lambda _text: None
    clock: Callable[[], float] = time.monotonic
    _rigs: dict[Candidate, Rig] = field(default_factory=dict)

    def outcome(self) -> Outcome:
        """Before anything is measured."""
        return Outcome(Race(list(self.candidates), self.weights))

    def run(self) -> Outcome:
        outcome = self.outcome()
        began = self.clock()
        self._deadline = began + self.budget_s
        try:
            self._rigs = {candidate: self.open_rig(candidate) for candidate in self.candidates}
            self._rounds(outcome)
        except _TimeIsUp as up:
            outcome.note = str(up)
        finally:
            for rig in self._rigs.values():
                rig.close()
        outcome.seconds = self.clock() - began
        return outcome

    def _rounds(self, outcome: Outcome) -> None:
        self._check_feasible(outcome.race)
        for count in (FIRST_ROUNDS, MORE_ROUNDS):
            found = self._measure(outcome.race, sorted(self.weights), count)
            for candidate, rounds in found.items():
                for times in rounds:
                    outcome.race.add(candidate, times)
            outcome.rounds += count
            if outcome.race.judge() is not None:
                break
        if beside := sorted({*self.more} - {*self.weights}):
            found = self._measure(outcome.race, beside, 1)
            outcome.beside = {candidate: times for candidate, [times] in found.items()}

    def _check_feasible(self, race: Race) -> None:
        """Before minutes go into computing a depth for nothing."""
        first = self.candidates[0]
        seconds = self._ask(race, first, Order("open", 1, _PROBE))
        if seconds is None:
            return
        depths = {point.depth for point in self.weights}
        needed_s = seconds / _PROBE * sum(depths) * len(self.candidates)
        if self.clock() + needed_s > self._deadline:
            raise _TimeIsUp(f"it would take {needed_s:.0f} s only to compute the depths")

    def _measure(
        self, race: Race, wanted: Sequence[Point], count: int
    ) -> dict[Candidate, list[dict[Point, float]]]:
        """``count`` rounds at every depth."""
        found: dict[Candidate, list[dict[Point, float]]] = {
            c: [{} for _ in range(count)] for c in race.running
        }
        for depth in sorted({point.depth for point in wanted}):
            points = [point for point in wanted if point.depth == depth]
            most = max(1, *(point.rows for point in points))
            for candidate in race.running:
                self._ask(race, candidate, Order("open", most, depth))
            for turn in range(count):
                self.say(f"depth {depth}, round {turn + 1} of {count}")
                for candidate in _rotated(race.running, turn):
                    for point in points:
                        self._time(race, candidate, point, found[candidate][turn])
        return {candidate: rounds for candidate, rounds in found.items() if candidate in race.running}

    def _time(self, race: Race, candidate: Candidate, point: Point, times: dict[Point, float]) -> None:
        if point.prefill:
            order, divisor = Order("prefill", 1, point.prefill), 1
        else:
            steps = _STEPS.get(point.rows, _MORE_STEPS)
            order, divisor = Order("decode", point.rows, steps), steps
        if (seconds := self._ask(race, candidate, order)) is not None:
            times[point] = seconds / divisor

    def _ask(self, race: Race, candidate: Candidate, order: Order) -> float | None:
        if candidate in race.out:
            return None
        left_s = self._deadline - self.clock()
        try:
            if left_s <= 0:
                raise TimeoutError
            return self._rigs[candidate].ask(order, left_s)
        except TimeoutError:
            raise _TimeIsUp(f"{self.budget_s:.0f} s were over") from None
        except RigFailed as error:
            race.fail(candidate, str(error))
            return None


class _TimeIsUp(Exception):
    pass


def _rotated(candidates: Sequence[Candidate], turn: int) -> Iterator[Candidate]:
    """Nobody is always first, or always after the same one."""
    shift = turn % max(1, len(candidates))
    order = [*candidates[shift:], *candidates[:shift]]
    yield from reversed(order) if turn % 2 else order
