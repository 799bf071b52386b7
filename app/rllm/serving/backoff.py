"""Pauses between tries: each longer than the last, scattered, and short again after a good time."""

from __future__ import annotations


class Backoff:
    def __init__(
        self, first_s: float = 0.2, factor: float = 2.0, most_s: float = 30.0, good_after_s: float = 60.0
    ) -> None:
        self._first_s = first_s
        self._factor = factor
        self._most_s = most_s
        self._good_after_s = good_after_s
        self._next_s = first_s
        self._up_since: float | None = None

    def succeeded(self, now: float) -> None:
        """Note that it runs. Earlier failures are forgotten after `good_after_s` of that."""
        self._up_since = now

    def pause_s(self, now: float, chance: float) -> float:
        """The pause before the next try; ``chance`` in 0..1 scatters it by a quarter either way."""
        if self._up_since is not None and now - self._up_since >= self._good_after_s:
            self._next_s = self._first_s
        self._up_since = None
        pause_s = self._next_s
        self._next_s = min(self._most_s, pause_s * self._factor)
        return pause_s * (0.75 + 0.5 * chance)
