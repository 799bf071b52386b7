"""A circuit breaker for one instance. It counts faults of the engine, never a client's mistake or absence.

CLOSED ── `faults` within `window_s` ──► OPEN ── after `open_s` ──► HALF_OPEN ── `successes` ──► CLOSED
                                           ▲                            │
                                           └────────── a fault ─────────┘
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum

from rllm.settings.limits import BreakerSettings


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Has no clock: every question comes with the time."""

    def __init__(
        self,
        settings: BreakerSettings | None = None,
        on_change: Callable[[BreakerState], None] = lambda state: None,
    ) -> None:
        self._settings = settings or BreakerSettings()
        self._on_change = on_change
        self._told = BreakerState.CLOSED
        self._faults: deque[float] = deque()
        self._opened_at: float | None = None
        self._successes = 0

    def state(self, now: float) -> BreakerState:
        if self._opened_at is None:
            return BreakerState.CLOSED
        open_ = now < self._opened_at + self._settings.open_s
        return BreakerState.OPEN if open_ else BreakerState.HALF_OPEN

    def allows(self, now: float, num_outstanding: int) -> bool:
        """Whether an instance with so many requests may be given another."""
        match self.state(now):
            case BreakerState.CLOSED:
                return True
            case BreakerState.OPEN:
                return False
            case BreakerState.HALF_OPEN:
                return num_outstanding < self._settings.probes

    def reopens_in_s(self, now: float) -> float:
        """Seconds until the next probe may be sent."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._settings.open_s - now)

    def tell(self, now: float) -> None:
        """Call ``on_change`` if the state is another than last time."""
        if (state := self.state(now)) is not self._told:
            self._told = state
            self._on_change(state)

    def succeeded(self, now: float) -> None:
        if self.state(now) is BreakerState.HALF_OPEN:
            self._successes += 1
            if self._successes >= self._settings.successes:
                self._opened_at = None
                self._faults.clear()

    def failed(self, now: float) -> None:
        state = self.state(now)
        if state is BreakerState.OPEN:
            return
        self._faults.append(now)
        while self._faults[0] < now - self._settings.window_s:
            self._faults.popleft()
        if state is BreakerState.HALF_OPEN or len(self._faults) >= self._settings.faults:
            self._opened_at = now
            self._successes = 0
            self._faults.clear()
