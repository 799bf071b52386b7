"""Tokens per second over the last seconds, for whoever looks once and cannot take a difference."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW_S = 10


class Meter:
    """The mean over `WINDOW_S`; a second that nobody counted in costs nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: deque[list[int]] = deque()

    def add(self, amount: int) -> None:
        second = int(self._clock())
        if self._seconds and self._seconds[-1][0] == second:
            self._seconds[-1][1] += amount
        else:
            self._drop_before(second)
            self._seconds.append([second, amount])

    def rate(self) -> float:
        self._drop_before(int(self._clock()))
        return sum(amount for _, amount in self._seconds) / WINDOW_S

    def _drop_before(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] <= second - WINDOW_S:
            self._seconds.popleft()
