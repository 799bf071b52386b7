"""The last five minutes, second by second: what the live page draws, also of the time before it was opened.

Latencies are counted in logarithmic classes, eight to an octave, so that quantiles of several models can be
taken together. A token costs one entry in a list, which is counted when its second is over.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from rllm.api.doors.live.live_state import Point
from rllm.engine.types import StepRecord
from rllm.serving.observer import InstanceState, Observer

KEPT_S = 300
_CLASSES = 8
_LEAST_S = 1e-6


@dataclass(slots=True)
class _Second:
    """Sums over one second of one model, and its gauges at the end of it."""

    at: int
    decode_tokens: int = 0
    prefill_tokens: int = 0
    cached_tokens: int = 0
    steps: int = 0
    busy_s: float = 0.0
    prefill_s: float = 0.0
    preemptions: int = 0
    running: int = 0
    waiting: int = 0
    kv_used: int = 0
    ttft: Counter[int] = field(default_factory=Counter)
    gaps: Counter[int] = field(default_factory=Counter)
    new_gaps: list[float] = field(default_factory=list)
    """Not in their classes yet."""

    def settle(self, gauges: Collection[tuple[int, int, int]]) -> None:
        """It is over, or looked at; ``gauges`` are those of the instances at its end."""
        self.gaps.update(map(_class_of, self.new_gaps))
        self.new_gaps.clear()
        self.running = sum(gauge[0] for gauge in gauges)
        self.waiting = sum(gauge[1] for gauge in gauges)
        self.kv_used = sum(gauge[2] for gauge in gauges)

    def add(self, step: StepRecord) -> None:
        seconds = step.plan_s + step.execute_s + step.sample_s + step.commit_s
        self.steps += 1
        self.decode_tokens += step.decode_tokens + step.accepted_tokens
        self.prefill_tokens += step.prefill_tokens
        self.cached_tokens += step.cached_tokens
        self.preemptions += step.preemptions
        self.busy_s += seconds
        if step.prefill_tokens:
            self.prefill_s += seconds

    def merge(self, other: _Second) -> None:
        """Its sums; gauges are not added up here."""
        self.steps += other.steps
        self.decode_tokens += other.decode_tokens
        self.prefill_tokens += other.prefill_tokens
        self.cached_tokens += other.cached_tokens
        self.preemptions += other.preemptions
        self.busy_s += other.busy_s
        self.prefill_s += other.prefill_s
        self.ttft.update(other.ttft)
        self.gaps.update(other.gaps)


class _Model:
    """The seconds of one model. A new one begins when something happens in it."""

    def __init__(self) -> None:
        self.seconds: deque[_Second] = deque(maxlen=KEPT_S)
        self._gauges: dict[str, tuple[int, int, int]] = {}

    def now(self, second: int) -> _Second:
        if not self.seconds or self.seconds[-1].at != second:
            self.settle()
            self.seconds.append(_Second(second))
        return self.seconds[-1]

    def set(self, instance: str, running: int, waiting: int, kv_used: int) -> None:
        """Gauges of one instance, in the second that `now` has begun."""
        self._gauges[instance] = (running, waiting, kv_used)

    def before(self, since: float) -> _Second | None:
        """The last second that is not later."""
        return next((second for second in reversed(self.seconds) if second.at <= since), None)

    def settle(self) -> None:
        """Bring the last second up to date; those before it are."""
        if self.seconds:
            self.seconds[-1].settle(self._gauges.values())


class History(Observer):
    """Call it from the event loop only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._models: dict[str, _Model] = {}
        self._refused: deque[float] = deque(maxlen=1000)
        self.rejections: Counter[str] = Counter()

    def _now(self, model: str) -> _Second:
        return self._model(model).now(int(self._clock()))

    def _model(self, model: str) -> _Model:
        if (known := self._models.get(model)) is None:
            known = self._models[model] = _Model()
        return known

    # --- what happens ---------------------------------------------------------------------------

    def on_step(self, model: str, instance: str, record: StepRecord) -> None:
        self._now(model).add(record)
        self._models[model].set(instance, record.running, record.waiting, record.kv_used)

    def on_instance(self, model: str, instance: str, state: InstanceState, reason: str) -> None:
        if state is not InstanceState.LOADING:
            self._now(model)
            self._models[model].set(instance, 0, 0, 0)

    def on_first_token(self, model: str, instance: str, seconds: float) -> None:
        self._now(model).ttft[_class_of(seconds)] += 1

    def on_token_gap(self, model: str, instance: str, seconds: float) -> None:
        self._now(model).new_gaps.append(seconds)

    def on_rejected(self, model: str, reason: str, bound: str) -> None:
        self.rejections[f"{reason}: {bound}" if bound else reason] += 1
        self._refused.append(self._clock())

    # --- what is asked --------------------------------------------------------------------------

    def refused_within(self, seconds: float) -> int:
        """Requests turned away lately; at most 1000."""
        since = self._clock() - seconds
        return sum(1 for at in self._refused if at >= since)

    def points(self, since: float) -> dict[str, tuple[Point, ...]]:
        """By model and "" for all, seconds that are complete and later than ``since``."""
        since = max(since, int(self._clock()) - KEPT_S - 1)
        wanted = self._later(since)
        points = {name: tuple(map(_point, seconds)) for name, seconds in wanted.items()}
        before = [model.before(since) for model in self._models.values()]
        return {**points, "": tuple(_together(list(wanted.values()), before))}

    def minute(self) -> dict[str, Point]:
        """By model and "" for all, the last 60 s as one point, dated by its end."""
        now = int(self._clock())
        merged = {"": _Second(now)}
        for name, seconds in self._later(now - 61).items():
            merged[name] = _Second(now)
            for second in seconds:
                merged[name].merge(second)
            merged[""].merge(merged[name])
        return {name: _point(second) for name, second in merged.items()}

    def _later(self, since: float) -> dict[str, list[_Second]]:
        now = int(self._clock())
        for model in self._models.values():
            model.settle()
        return {
            name: [second for second in model.seconds if since < second.at < now]
            for name, model in self._models.items()
        }


def _together(tracks: Sequence[list[_Second]], before: Sequence[_Second | None]) -> Iterator[Point]:
    """The same seconds of several models as one. A model without one has the gauges of its last, which may
    be the one ``before``."""
    gauges = {index: second for index, second in enumerate(before) if second is not None}
    everything = sorted(
        ((second.at, index, second) for index, track in enumerate(tracks) for second in track),
        key=lambda entry: entry[:2],
    )
    for at, entries in groupby(everything, key=lambda entry: entry[0]):
        total = _Second(at)
        for _, index, second in entries:
            gauges[index] = second
            total.merge(second)
        total.running = sum(second.running for second in gauges.values())
        total.waiting = sum(second.waiting for second in gauges.values())
        total.kv_used = sum(second.kv_used for second in gauges.values())
        yield _point(total)


def _point(second: _Second) -> Point:
    return Point(
        t=second.at,
        decode_tokens=second.decode_tokens,
        prefill_tokens=second.prefill_tokens,
        cached_tokens=second.cached_tokens,
        steps=second.steps,
        busy_s=round(second.busy_s, 4),
        prefill_s=round(second.prefill_s, 4),
        running=second.running,
        waiting=second.waiting,
        kv_used=second.kv_used,
        preemptions=second.preemptions,
        ttft_p50_s=_quantile(second.ttft, 0.5),
        ttft_p95_s=_quantile(second.ttft, 0.95),
        itl_p50_s=_quantile(second.gaps, 0.5),
        itl_p99_s=_quantile(second.gaps, 0.99),
    )


def _class_of(seconds: float) -> int:
    return round(_CLASSES * math.log2(max(seconds, _LEAST_S)))


def _quantile(counts: Counter[int], share: float) -> float | None:
    """The middle of the class in which it lies."""
    rank, seen = math.ceil(share * counts.total()), 0
    for number in sorted(counts):
        seen += counts[number]
        if seen >= rank:
            return round(math.exp2(number / _CLASSES), 6)
    return None
