"""Repeats put together: for every subject and load, each figure with what is known about its error."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rllm_bench import metrics, stats
from rllm_bench.metrics import CellData
from rllm_bench.records import Load, WorkloadSpec
from rllm_bench.stats import Array, Estimate
from rllm_bench.store import RunRecord, Store

Slos = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Result:
    """One subject under one load, over its repeats."""

    subject: str
    group: str
    workload: WorkloadSpec
    load: Load
    cells: Sequence[CellData]
    values: Mapping[str, Estimate]
    failed: Sequence[str] = ()
    """Reasons of repeats that could not be measured at all."""

    def __getitem__(self, name: str) -> float:
        return self.values[name].value

    def get(self, name: str) -> float | None:
        estimate = self.values.get(name)
        return estimate.value if estimate else None

    @property
    def shape(self) -> tuple[int, int]:
        return self.workload.prompt_tokens, self.workload.output_tokens


@dataclass(frozen=True)
class Summary:
    """What a report is made of: one or more runs, read back from disk."""

    runs: Sequence[RunRecord]
    results: Sequence[Result]
    slos: Slos
    cells: Sequence[CellData] = field(default_factory=list)

    def find(self, subject: str, group: str) -> Result | None:
        return next((r for r in self.results if r.subject == subject and r.group == group), None)

    @property
    def subjects(self) -> list[str]:
        return list(dict.fromkeys(result.subject for result in self.results))

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(result.group for result in self.results))

    @property
    def shapes(self) -> list[tuple[int, int]]:
        return sorted({result.shape for result in self.results})

    @property
    def indicative(self) -> bool:
        """Too few repeats for an interval somewhere: the report must not sound certain."""
        return any(not cell.record.spec.intervals for cell in self.cells)


def draws(cell: CellData, name: str, slos: Slos, count: int = stats.RESAMPLES) -> Array | None:
    """Resamples of one figure of one cell, seeded by the cell and the figure; None where it has none."""
    rng = np.random.default_rng(
        int.from_bytes(hashlib.sha256(f"{cell.record.spec.id}/{name}".encode()).digest()[:8])
    )
    if name == "output_tps":
        return stats.resample(cell.block_output_tps, stats.mean, rng, count)
    if name.startswith("goodput_"):
        return _goodput_draws(cell, slos[name.removeprefix("goodput_").removesuffix("_rps")], rng, count)
    kind, _, which = name.removesuffix("_ms").partition("_")
    if kind == "itl" and which.startswith("p"):
        return stats.resample_clusters(cell.itl_ms, float(which[1:]), rng) if cell.itl_ms else None
    data = {"ttft": cell.ttft_ms, "tpot": cell.tpot_ms, "e2e": cell.e2e_ms}.get(kind)
    if data is None or len(data) == 0:
        return None
    statistic = stats.mean if which == "mean" else stats.percentile(float(which[1:]))
    return stats.resample(data, statistic, rng, count)


def _goodput_draws(
    cell: CellData, slo: Mapping[str, float], rng: np.random.Generator, count: int
) -> Array | None:
    begin, end = cell.window
    due = [r for r in cell.requests if begin <= r.scheduled_us / 1e6 <= end]
    if not due or end <= begin:
        return None
    met = np.array([float(r.ok and metrics.meets(r, slo)) for r in due])
    return stats.resample(met, stats.mean, rng, count) * (len(due) / (end - begin))


def with_interval(slos: Slos) -> list[str]:
    """Figures that get an interval: those that a table shows."""
    names = [f"{kind}_p{q}_ms" for kind in ("ttft", "tpot", "itl", "e2e") for q in (50, 99)]
    return ["output_tps", *names, *(f"goodput_{name}_rps" for name in slos)]


def result(cells: Sequence[CellData], subject: str, slos: Slos) -> Result:
    """``cells``: the repeats of one subject under one load."""
    spec = cells[0].record.spec
    measured = [cell for cell in cells if cell.record.error is None and cell.good]
    summaries = [metrics.summarize(cell, slos) for cell in measured]
    names = [
        name for name in (summaries[0] if summaries else {}) if all(name in values for values in summaries)
    ]
    intervals = (
        set(with_interval(slos)) if measured and all(c.record.spec.intervals for c in measured) else set()
    )
    values: dict[str, Estimate] = {}
    for name in names:
        found = [draws(cell, name, slos) for cell in measured] if name in intervals else []
        usable = [one for one in found if one is not None]
        values[name] = stats.estimate(
            [summary[name] for summary in summaries], usable if len(usable) == len(measured) else None
        )
    failed = [cell.record.error for cell in cells if cell.record.error is not None]
    failed += ["no request succeeded" for cell in cells if cell.record.error is None and not cell.good]
    return Result(subject, spec.group, spec.workload, spec.load, measured, values, failed)


def summarize(stores: Sequence[Store], slos: Slos | None = None) -> Summary:
    """Subjects of several runs keep apart by the run's name where they would collide."""
    runs = [store.run() for store in stores]
    goals: Slos = slos or runs[0].slos
    owners: dict[str, int] = {}
    for run in runs:
        for name in {spec.subject for spec in run.cells}:
            owners[name] = owners.get(name, 0) + 1
    grouped: dict[tuple[str, str], list[CellData]] = {}
    every: list[CellData] = []
    for store, run in zip(stores, runs, strict=True):
        for cell in store.cells():
            name = cell.record.spec.subject
            label = name if owners[name] == 1 else f"{name} ({run.name})"
            grouped.setdefault((label, cell.record.spec.group), []).append(cell)
            every.append(cell)
    results = [result(cells, label, goals) for (label, _), cells in grouped.items()]
    results.sort(key=_order(runs))
    return Summary(runs, results, goals, every)


def _order(runs: Sequence[RunRecord]) -> Callable[[Result], tuple[Any, ...]]:
    ranks = {
        name: rank for rank, name in enumerate(dict.fromkeys(s.name for run in runs for s in run.subjects))
    }

    def key(one: Result) -> tuple[Any, ...]:
        rank = ranks.get(one.subject.partition(" (")[0], len(ranks))
        load = one.load.concurrency or 0 if one.load.mode == "closed" else one.load.rate or 0
        return (one.shape, one.load.mode, load, rank, one.subject)

    return key
