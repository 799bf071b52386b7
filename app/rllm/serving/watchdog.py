"""Watches for progress: an instance that has work and completes no step is stuck, whatever its process says.

One timer is set when work arrives and moved only when it fires: an idle instance costs nothing, and a step
costs one assignment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Watchdog:
    """Lives on the event loop. ``on_stall`` is called with the seconds without a step; it should kill."""

    def __init__(self, timeout_s: float, on_stall: Callable[[float], None]) -> None:
        self._timeout_s = timeout_s
        self._on_stall = on_stall
        self._progress_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._busy = False
        self._confirming = False

    def work(self) -> None:
        """There is something to compute: call it with every request. The first one starts the watch."""
        if self._busy or self._timeout_s <= 0:
            return
        self._busy = True
        self.progress()
        if self._timer is None:
            self._set(self._timeout_s)

    def progress(self) -> None:
        self._progress_at = asyncio.get_running_loop().time()

    def idle(self) -> None:
        """Nothing is outstanding; a timer that is set may fire once more and finds nothing."""
        self._busy = False

    def stop(self) -> None:
        self._busy = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        confirming, self._confirming = self._confirming, False
        if not self._busy:
            return
        silent_s = asyncio.get_running_loop().time() - self._progress_at
        if silent_s < self._timeout_s:
            self._set(self._timeout_s - silent_s)
        elif not confirming:
            # It may be this loop that stood still, with the steps waiting in the socket: read them first.
            self._confirming = True
            self._set(min(0.25, self._timeout_s / 4))
        else:
            self._busy = False
            self._on_stall(silent_s)
