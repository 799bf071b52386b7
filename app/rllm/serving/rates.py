"""Learns how fast an instance works from what it did. Times come from outside."""

from __future__ import annotations

from collections import deque

_SMOOTHING = 0.1
_WINDOW = 32
_FORECASTS = 50
_CONFIDENCE = 0.8


class DrainRate:
    """Learns the seconds between two requests that leave a full instance, each making room for another.

    It is measured where more requests are there than slots. Before, it is estimated from how long requests
    hold their slot.
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_WINDOW)
        self._held_s: float | None = None
        self._gap_s: float | None = None

    def finished(self, now: float, *, saturated: bool, held_s: float) -> None:
        self._held_s = _blend(self._held_s, held_s)
        if not saturated:
            self._times.clear()
            return
        self._times.append(now)
        if len(self._times) >= 4:
            self._gap_s = (now - self._times[0]) / (len(self._times) - 1)

    def gap_s(self, slots: int) -> float | None:
        """Seconds between two that leave; None while nothing has finished yet."""
        if self._gap_s is not None:
            return self._gap_s
        return None if self._held_s is None else self._held_s / slots

    def forget_saturation(self) -> None:
        """Begin anew: the worker was replaced, and the time without one is no measure of anything."""
        self._times.clear()


class TokenGap:
    """Learns the seconds between two tokens of a sequence: a mean over hundreds, prefill of others in it."""

    def __init__(self) -> None:
        self.seconds: float | None = None

    def add(self, seconds: float) -> None:
        self.seconds = _blend(self.seconds, seconds, 0.01)


class ForecastMargin:
    """Learns by how much first tokens come later than predicted: enough for four of five.

    Old forecasts do not count: a margin that refuses everybody would bring no newer ones.
    """

    def __init__(self, window_s: float = 10.0) -> None:
        self._window_s = window_s
        self._errors: deque[tuple[float, float]] = deque(maxlen=_FORECASTS)
        """When a first token came, and how late."""

    def add(self, now: float, predicted_s: float, actual_s: float) -> None:
        self._errors.append((now, actual_s - predicted_s))

    def seconds(self, now: float) -> float:
        while self._errors and self._errors[0][0] < now - self._window_s:
            self._errors.popleft()
        errors = sorted(error for _, error in self._errors)
        return max(0.0, errors[int(_CONFIDENCE * len(errors))]) if errors else 0.0


class Refusals:
    """Counts requests that were refused lately: they will be back, and should not be all at once."""

    def __init__(self, window_s: float = 5.0) -> None:
        self._window_s = window_s
        self._times: deque[float] = deque()

    def add(self, now: float) -> None:
        self._times.append(now)

    def count(self, now: float) -> int:
        while self._times and self._times[0] < now - self._window_s:
            self._times.popleft()
        return len(self._times)


class OutputLength:
    """Learns how many tokens answers usually have."""

    def __init__(self) -> None:
        self._mean = 128.0

    def finished(self, num_tokens: int) -> None:
        self._mean = _blend(self._mean, float(num_tokens))

    @property
    def usual(self) -> int:
        return max(1, round(self._mean))

    def expect_more(self, num_tokens: int, max_tokens: int) -> int:
        """Tokens to come after ``num_tokens``. Past the usual length, an answer may end at any time."""
        usual = min(max_tokens, self.usual)
        return usual - num_tokens if num_tokens < usual else min(usual, max_tokens - num_tokens)


class Rates:
    """Everything that is learned about one instance."""

    def __init__(self) -> None:
        self.drain = DrainRate()
        self.prefill_token_s: float | None = None
        """Seconds for one more prompt token, as the worker says (`rllm.engine.times`)."""
        self.token_gap = TokenGap()
        self.output = OutputLength()
        self.margin = ForecastMargin()


def _blend(old: float | None, new: float, smoothing: float = _SMOOTHING) -> float:
    return new if old is None else old + smoothing * (new - old)
