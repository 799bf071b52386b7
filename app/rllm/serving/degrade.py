"""The ladder says what the server gives up, and in which order, when it has more to do than it can.

The operator writes the rungs; without any nothing is degraded. The level rises at once. It falls after some
time clearly below its rung, so that the server does not swing between two levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rllm.settings.degrade import Action, Rung


@dataclass(frozen=True, slots=True)
class Measures:
    """What a level means for a request."""

    level: int = 0
    max_tokens: int | None = None
    max_priority: int | None = None
    route: bool = False
    refuse: bool = False
    """Holds where there is no smaller variant to route to."""


class Ladder:
    """Turns one model's loads and times into its level, a number of rungs."""

    def __init__(self, rungs: Sequence[Rung], *, hold_s: float = 5.0, release: float = 0.8) -> None:
        self.rungs = tuple(sorted(rungs, key=lambda rung: rung.at))
        self._hold_s = hold_s
        self._release = release
        self._level = 0
        self._calm_since: float | None = None

    @property
    def level(self) -> int:
        return self._level

    def hear(self, load: float, now: float) -> int:
        """The level at this load. It falls one rung per ``hold_s`` of calm."""
        wanted = sum(1 for rung in self.rungs if load >= rung.at)
        if wanted >= self._level:
            self._level = wanted
            self._calm_since = None
        elif load >= self.rungs[self._level - 1].at * self._release:
            self._calm_since = None  # below the rung, but so near that it would be back at once
        elif self._calm_since is None:
            self._calm_since = now
        elif now - self._calm_since >= self._hold_s:
            self._level -= 1
            self._calm_since = now
        return self._level

    def measures(self) -> Measures:
        active = self.rungs[: self._level]
        caps = [rung.max_tokens for rung in active if rung.action is Action.CAP]
        shed = [rung.priority for rung in active if rung.action is Action.SHED]
        return Measures(
            level=self._level,
            max_tokens=min(caps, default=None),
            max_priority=min(shed, default=None),
            route=any(rung.action is Action.ROUTE for rung in active),
            refuse=any(rung.action is Action.REFUSE for rung in active),
        )
