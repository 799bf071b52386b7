"""Is one better than the other? A comparison is an object; its verdict knows the intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from rllm_bench.figures import stats
from rllm_bench.figures.names import Slos, figure
from rllm_bench.figures.stats import Interval
from rllm_bench.figures.summary import Result, Summary, draws
from rllm_bench.figures.words import listed, machine
from rllm_bench.records.runs import RunRecord

METRICS = ("output_tps", "ttft_p50_ms", "ttft_p99_ms", "tpot_p50_ms", "e2e_p99_ms")
MARGIN = 0.05
"""Single runs differ by this much without a reason: without intervals, a difference up to it is none."""
Verdict = Literal["better", "worse", "no significant difference", "unknown"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """``new`` against ``old`` in one figure. ``ratio`` above 1 always means that new is better: for
    latencies it is old / new."""

    metric: str
    group: str
    new: str
    old: str
    new_value: float
    old_value: float
    ratio: float
    interval: Interval | None
    verdict: Verdict
    overlapping: bool = False
    """The ranges over the repeats have values in common."""
    more_is_better: bool = False

    @property
    def tied(self) -> bool:
        """Not to be told apart: by the verdict, or where there is none by the repeats and `MARGIN`."""
        if self.verdict != "unknown":
            return self.verdict == "no significant difference"
        return self.overlapping or max(self.ratio, 1 / self.ratio) <= 1 + MARGIN

    def __str__(self) -> str:
        if self.verdict == "unknown":
            return f"{'≈ ' if self.tied else ''}{self.ratio:.2f}×"
        bounds = f"[{self.interval.low:.2f}, {self.interval.high:.2f}]" if self.interval else ""
        if self.verdict == "no significant difference":
            return f"no significant difference ({self.ratio:.2f}× {bounds})"
        speed = self.more_is_better
        word = {"better": "more" if speed else "faster", "worse": "less" if speed else "slower"}[self.verdict]
        return f"{self.ratio:.2f}× {bounds} {word}"


def compare(new: Result, old: Result, metric: str, slos: Slos) -> Comparison | None:
    """None where one of them lacks the figure. A difference counts when the interval of the ratio excludes
    1 and the repeats of both sides do not overlap: resampling requests knows nothing of what changes
    between one start of a server and the next."""
    if metric not in new.values or metric not in old.values:
        return None
    a, b = new[metric], old[metric]
    if a <= 0 or b <= 0:
        return None
    known = figure(metric, slos)
    ratio = known.ratio(a, b)
    bounds = _interval(new, old, metric, slos, known.higher_is_better)
    return Comparison(
        metric,
        new.group,
        new.subject,
        old.subject,
        a,
        b,
        ratio,
        bounds,
        _verdict(new, old, metric, ratio, bounds),
        _overlap(new, old, metric),
        known.higher_is_better,
    )


def _interval(new: Result, old: Result, metric: str, slos: Slos, higher: bool) -> Interval | None:
    if new.values[metric].interval is None or old.values[metric].interval is None:
        return None
    sides = [[draws(cell, metric, slos) for cell in side.cells] for side in (new, old)]
    fresh, base = ([one for one in side if one is not None] for side in sides)
    if not fresh or not base or any(one.min() <= 0 for one in (*fresh, *base)):
        return None
    rng = stats.draws_of(f"{new.subject}/{old.subject}/{new.group}/{metric}")
    return stats.ratio(fresh, base, rng) if higher else stats.ratio(base, fresh, rng)


def _verdict(new: Result, old: Result, metric: str, ratio: float, bounds: Interval | None) -> Verdict:
    if bounds is None:
        return "unknown"
    if _overlap(new, old, metric) or bounds.low <= 1.0 <= bounds.high:
        return "no significant difference"
    return "better" if ratio > 1 else "worse"


def _overlap(new: Result, old: Result, metric: str) -> bool:
    ours, theirs = new.values[metric].spread, old.values[metric].spread
    return ours is not None and theirs is not None and ours.low <= theirs.high and theirs.low <= ours.high


def pairs(new: Summary, old: Summary, metrics: tuple[str, ...] = METRICS) -> Iterator[Comparison]:
    """Every subject and load that both have. Runs with one subject each are compared with each other,
    whatever the subjects are called."""
    single = len(new.subjects) == len(old.subjects) == 1
    for result in new.results:
        other = old.find(old.subjects[0] if single else result.subject, result.group, result.part)
        if other is None:
            continue
        for metric in metrics:
            found = compare(result, other, metric, new.slos)
            if found is not None:
                yield found


def compute_paths(summary: Summary) -> Mapping[str, dict[str, str]]:
    """What the last cell of each subject was computed by."""
    return {
        cell.record.spec.subject: path
        for cell in summary.cells
        if (path := cell.record.target.get("compute_path"))
    }


def differences(new: Summary, old: Summary) -> Iterator[str]:
    """Where two runs do not differ in what is compared alone: machine, engines, model files, code."""
    if new.runs and old.runs:
        yield from _machines(new.runs[0], old.runs[0])
        yield from _subjects(new.runs[0], old.runs[0])
    before = compute_paths(old)
    for subject, path in compute_paths(new).items():
        then = before.get(subject, {})
        for name in sorted(path.keys() & then.keys()):
            if path[name] != then[name]:
                yield f"{subject} was computed by other code: {name} {then[name]}, now {path[name]}"


def _machines(new: RunRecord, old: RunRecord) -> Iterator[str]:
    if machine(new.environment) != machine(old.environment):
        yield f"other machines: {machine(old.environment)}, now {machine(new.environment)}"
    before, now = (set(run.environment["cpu"]["features"]) for run in (old, new))
    if before != now:
        lost, gained = sorted(before - now), sorted(now - before)
        yield f"other processor features: without {listed(lost) or 'none'}, with {listed(gained) or 'none'}"
    then, today = (run.environment.get("packages", {}) for run in (old, new))
    for name in sorted(then.keys() & today.keys()):
        if then[name] != today[name]:
            yield f"other versions: {name} {then[name]}, now {today[name]}"


def _subjects(new: RunRecord, old: RunRecord) -> Iterator[str]:
    before = {subject.name: subject for subject in old.subjects}
    for now in new.subjects:
        then = before.get(now.name)
        if then is None:
            continue
        if now.version != then.version:
            yield f"{now.name} is another version: {then.version}, now {now.version}"
        if now.model_sha256 and then.model_sha256 and now.model_sha256 != then.model_sha256:
            hashes = f"sha256 {then.model_sha256[:12]}, now {now.model_sha256[:12]}"
            yield f"{now.name} served another model file: {hashes}"
