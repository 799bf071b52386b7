"""The first page of a study: its question, its goals, and the figures of each part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from rllm_bench.figures import cost
from rllm_bench.figures.names import figure
from rllm_bench.figures.summary import Result, Summary
from rllm_bench.figures.words import machine, number
from rllm_bench.records.runs import Goal, RunRecord
from rllm_bench.records.store import safe_name
from rllm_bench.report import plots
from rllm_bench.report.tables import load_name, markdown

_COLUMNS = {
    "tokens/s": "output_tps",
    "TTFT p50 ms": "ttft_p50_ms",
    "p99": "ttft_p99_ms",
    "TPOT p50 ms": "tpot_p50_ms",
    "ITL p50 ms": "itl_p50_ms",
    "ITL p99": "itl_p99_ms",
    "GPU MB": "gpu_memory_peak_mb",
    "W": "gpu_power_mean_w",
    "from cache": "prefix_hit_share",
    "tokens per step": "tokens_per_step",
}


def first_page(summary: Summary, look: plots.Look, out: Path) -> Iterator[str]:
    run = summary.runs[0]
    yield f"# {run.question or run.name}"
    yield ""
    yield f"Machine: {machine(run.environment)}, {run.created_at[:10]}. Streamed; medians over the repeats."
    yield ""
    if run.goals:
        yield goals(run.goals, summary.results)
        yield ""
    for part in dict.fromkeys(result.part for result in summary.results):
        rows = [result for result in summary.results if result.part == part and result.values]
        if rows:
            yield f"## {part or 'Figures'}"
            yield ""
            yield from _pictures(summary, rows, look, out, part)
            yield _table(rows, run)
            yield ""


def _pictures(
    summary: Summary, rows: Sequence[Result], look: plots.Look, out: Path, part: str
) -> Iterator[str]:
    """A picture for each shape of a part that was measured under several loads, or several shapes."""
    own = replace(summary, results=rows)
    for shape in own.shapes:
        if len({row.group for row in rows if row.shape == shape}) > 1:
            name = safe_name(f"{part or 'load'}-p{shape[0]}-o{shape[1]}")
            yield f"![over load]({plots.save(plots.over_load(own, look, shape), out / 'plots', name)})"
            yield ""
    axes: tuple[Literal["prompt", "output"], ...] = ("prompt", "output")
    for axis in axes:
        if (lengths := plots.over_length(own, look, axis)) is not None:
            name = safe_name(f"{part or 'load'}-over-{axis}")
            yield f"![over length]({plots.save(lengths, out / 'plots', name)})"
            yield ""


def _table(rows: Sequence[Result], run: RunRecord) -> str:
    """Columns that nobody has are left out."""
    shown = {title: name for title, name in _COLUMNS.items() if any(name in row.values for row in rows)}
    lines = [
        [
            row.subject,
            row.workload.kind,
            load_name(row),
            f"{row.shape[0]} → {row.shape[1]}",
            *(number(row.get(name)) for name in shown.values()),
            _price(row, run),
            str(len(row.cells)),
        ]
        for row in rows
    ]
    return markdown(
        ["subject", "scenario", "load", "tokens in → out", *shown, "USD per 1k", "repeats"], lines
    )


def _price(row: Result, run: RunRecord) -> str:
    if run.price_per_hour is None or not row.get("output_tps"):
        return "–"
    return f"{cost.per_1k_tokens(run.price_per_hour, row['output_tps']):.5f}"


def goals(wanted: Sequence[Goal], results: Sequence[Result]) -> str:
    rows = []
    for goal in wanted:
        ours, theirs = _best(goal, goal.ours, results), _best(goal, goal.theirs, results)
        limit = f"≥ {goal.at_least:g}" if goal.at_least is not None else f"≤ {goal.at_most:g}"
        if ours is None or theirs is None:
            rows.append([goal.what, number(ours), goal.theirs, number(theirs), "–", limit, "not measured"])
            continue
        ratio = ours / theirs
        reached = ratio >= goal.at_least if goal.at_least is not None else ratio <= (goal.at_most or 0.0)
        verdict = "reached" if reached else "**not reached**"
        rows.append([goal.what, number(ours), goal.theirs, number(theirs), f"{ratio:.2f}", limit, verdict])
    return markdown(["goal", "ours", "against", "theirs", "ours over theirs", "wanted", ""], rows)


def _best(goal: Goal, subject: str, results: Sequence[Result]) -> float | None:
    found = [
        result[goal.figure]
        for result in results
        if fnmatchcase(result.subject, subject)
        and result.group == goal.load
        and fnmatchcase(result.part, goal.part)
        and goal.figure in result.values
    ]
    best = max if figure(goal.figure).higher_is_better else min
    return best(found) if found else None
