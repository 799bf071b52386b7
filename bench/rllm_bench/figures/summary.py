"""Repeats put together: for every subject and load, each figure with what is known about its error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from rllm_bench.figures import metrics, stats
from rllm_bench.figures.metrics import CellData
from rllm_bench.figures.names import Slos, figure
from rllm_bench.figures.stats import Array, Estimate
from rllm_bench.records.cells import Load, WorkloadSpec
from rllm_bench.records.runs import RunRecord, Subject
from rllm_bench.records.store import Store


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
    known: Subject | None = None
    """What its run recorded of the subject. Its label here may name the run, too."""
    part: str = ""
    """Of the plan, where that has several."""
    each: Sequence[Mapping[str, float]] = ()
    """The figures of each of the cells."""

    def __getitem__(self, name: str) -> float:
        return self.values[name].value

    @overload
    def get(self, name: str) -> float | None: ...

    @overload
    def get(self, name: str, default: float) -> float: ...

    def get(self, name: str, default: float | None = None) -> float | None:
        estimate = self.values.get(name)
        return estimate.value if estimate else default

    @property
    def shape(self) -> tuple[int, int]:
        return self.workload.prompt_tokens, self.workload.output_tokens


@dataclass(frozen=True)
class Summary:
    """What a report is made of: one or more runs, read back from disk."""

    runs: Sequence[RunRecord]
    results: Sequence[Result]
    slos: Slos
    figures: Sequence[tuple[CellData, Mapping[str, float]]] = ()
    """Every finished cell in the order of the plans, with its own figures; none where nothing succeeded."""

    @property
    def cells(self) -> list[CellData]:
        return [cell for cell, _ in self.figures]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of the model file by label, where they are known."""
        return {r.subject: r.known.model_bytes for r in self.results if r.known and r.known.model_bytes}

    def find(self, subject: str, group: str, part: str = "") -> Result | None:
        wanted = (subject, group, part)
        return next((r for r in self.results if (r.subject, r.group, r.part) == wanted), None)

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
    known = figure(name, slos)
    rng = stats.draws_of(f"{cell.record.spec.id}/{name}")
    return known.draws(cell, rng, count) if known.draws is not None else None


def with_interval(slos: Slos) -> list[str]:
    """Figures that get an interval: those that a table shows."""
    names = [f"{kind}_p{q}_ms" for kind in ("ttft", "tpot", "itl", "e2e") for q in (50, 99)]
    return ["output_tps", *names, *(f"goodput_{name}_rps" for name in slos)]


def figures_of(cell: CellData, slos: Slos) -> Mapping[str, float]:
    return metrics.summarize(cell, slos) if cell.record.error is None and cell.good else {}


def result(
    repeats: Sequence[tuple[CellData, Mapping[str, float]]],
    subject: str,
    slos: Slos,
    known: Subject | None = None,
) -> Result:
    """``repeats``: those of one subject under one load, with their figures."""
    cells = [cell for cell, _ in repeats]
    spec = cells[0].record.spec
    measured = [cell for cell, values in repeats if values]
    summaries = [values for _, values in repeats if values]
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
    return Result(
        subject=subject,
        group=spec.group,
        workload=spec.workload,
        load=spec.load,
        cells=measured,
        values=values,
        failed=failed,
        known=known,
        part=spec.part,
        each=summaries,
    )


def judged(store: Store) -> list[CellData]:
    """The finished cells of a run, in the order of its plan."""
    return [CellData.of(cell) for cell in store.cells()]


def summarize(stores: Sequence[Store], slos: Slos | None = None) -> Summary:
    """Subjects of several runs keep apart by the run's name where they would collide."""
    runs = [store.run() for store in stores]
    goals: Slos = slos or runs[0].slos
    owners: dict[str, int] = {}
    for run in runs:
        for name in {spec.subject for spec in run.cells}:
            owners[name] = owners.get(name, 0) + 1
    grouped: dict[tuple[str, str, str], list[tuple[CellData, Mapping[str, float]]]] = {}
    known: dict[str, Subject] = {}
    every: list[tuple[CellData, Mapping[str, float]]] = []
    for store, run in zip(stores, runs, strict=True):
        subjects = {subject.name: subject for subject in run.subjects}
        for cell in judged(store):
            name = cell.record.spec.subject
            label = name if owners[name] == 1 else f"{name} ({run.name})"
            known[label] = subjects[name]
            every.append((cell, figures_of(cell, goals)))
            spec = cell.record.spec
            grouped.setdefault((label, spec.group, spec.part), []).append(every[-1])
    results = [result(cells, label, goals, known[label]) for (label, *_), cells in grouped.items()]
    results.sort(key=_order(runs))
    return Summary(runs, results, goals, every)


def _order(runs: Sequence[RunRecord]) -> Callable[[Result], tuple[Any, ...]]:
    ranks = {
        name: rank for rank, name in enumerate(dict.fromkeys(s.name for run in runs for s in run.subjects))
    }

    parts = {part: rank for rank, part in enumerate(dict.fromkeys(c.part for run in runs for c in run.cells))}

    def key(one: Result) -> tuple[Any, ...]:
        rank = ranks.get(one.known.name if one.known else one.subject, len(ranks))
        load = one.load.concurrency or 0 if one.load.mode == "closed" else one.load.rate or 0
        return (parts.get(one.part, 0), one.shape, one.load.mode, load, rank, one.subject)

    return key
