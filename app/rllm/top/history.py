"""The last looks at a server, and what happened between them."""

from __future__ import annotations

from collections import deque

from rllm.top.scrape import Reading, difference, quantile

WINDOW_S = 30.0


class History:
    """Rates and quantiles over the last `WINDOW_S`; with one look only, quantiles are since the start."""

    def __init__(self) -> None:
        self._readings: deque[Reading] = deque()

    def add(self, reading: Reading) -> None:
        if self._readings and _start(reading) != _start(self._readings[-1]):
            self._readings.clear()  # another server process, whose counters began again
        self._readings.append(reading)
        while len(self._readings) > 2 and self._readings[1].at <= reading.at - WINDOW_S:
            self._readings.popleft()

    @property
    def last(self) -> Reading:
        return self._readings[-1]

    @property
    def span_s(self) -> float:
        """0: there was one look only."""
        return self.last.at - self._readings[0].at

    def rate(self, name: str, **labels: str) -> float | None:
        """Per second."""
        newer, older = self.last.total(name, **labels), self._readings[0].total(name, **labels)
        if newer is None or self.span_s <= 0:
            return None
        return (newer - (older or 0.0)) / self.span_s

    def mean(self, name: str, **labels: str) -> float | None:
        """Of a histogram's observations."""
        first = self._readings[0] if self.span_s > 0 else None
        total = self._grown(f"{name}_sum", first, labels)
        count = self._grown(f"{name}_count", first, labels)
        return total / count if count else None

    def quantile(self, name: str, q: float, **labels: str) -> float | None:
        newer = self.last.buckets(name, **labels)
        older = self._readings[0].buckets(name, **labels) if self.span_s > 0 else {}
        return quantile(difference(newer, older), q)

    def _grown(self, name: str, first: Reading | None, labels: dict[str, str]) -> float:
        before = first.total(name, **labels) if first else None
        return (self.last.total(name, **labels) or 0.0) - (before or 0.0)


def _start(reading: Reading) -> float | None:
    return reading.total("rllm_process_start_time_seconds", process="api")
