"""The chaos report: Markdown with plots, made from the results that lie in a folder, whenever each was run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from tabulate import tabulate

from tests.chaos.result import Result, Series, load

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def write(folder: Path, names: Sequence[str]) -> Path:
    """report.md and its images, from NAME.json of those ``names`` that are there, in this order."""
    results = [load(path) for name in names if (path := folder / f"{name}.json").exists()]
    missing = [name for name in names if not (folder / f"{name}.json").exists()]
    path = folder / "report.md"
    path.write_text("\n".join(_lines(results, missing, folder)) + "\n")
    return path


def _lines(results: list[Result], missing: list[str], folder: Path) -> list[str]:
    kept = sum(check.kept for result in results for check in result.checks)
    total = sum(len(result.checks) for result in results)
    lines = [
        "# A bad day: chaos report",
        "",
        f"**{kept} of {total} promises kept.** Each scenario says when it ran, and how much of the machine's "
        "processor time other programs used meanwhile: a promise about time that was broken on a busy machine "
        "says little.",
        "",
        tabulate(
            [_overview(result) for result in results],
            ["scenario", "kept", "started", "took", "load average before, after", "used by others", "commit"],
            tablefmt="github",
        ),
        "",
        *(f"- {machine}" for machine in dict.fromkeys(result.circumstances.machine for result in results)),
    ]
    if missing:
        lines += ["", f"Not run: {', '.join(missing)}."]
    for result in results:
        lines += ["", *_section(result, folder)]
    return lines


def _overview(result: Result) -> list[str]:
    facts = result.circumstances
    kept = sum(check.kept for check in result.checks)
    verdict = f"{kept} of {len(result.checks)}"
    return [
        result.title,
        verdict if result.kept else f"**{verdict}**",
        facts.started,
        f"{facts.elapsed_s:.0f} s",
        f"{facts.load_before}, {facts.load_after}",
        f"{facts.others_percent:g} %" + ("" if facts.was_quiet else " (busy)"),
        facts.commit,
    ]


def _section(result: Result, folder: Path) -> list[str]:
    rows = [["yes" if c.kept else "**NO**", c.promise, c.measured] for c in result.checks]
    lines = [f"## {result.title}", "", result.setup, "", f"`{result.circumstances.command}`", ""]
    lines += [tabulate(rows, ["kept", "promise", "measured"], tablefmt="github")]
    for title, columns, table in result.tables:
        lines += ["", f"### {title}", "", tabulate(table, columns, tablefmt="github")]
    for number, series in enumerate(result.series):
        image = f"{result.name}-{number}.svg"
        _plot(series, folder / image)
        lines += ["", f"![{series.title}]({image})"]
    lines += [line for note in result.notes for line in ("", note)]
    for error in result.circumstances.errors:
        lines += ["", f"    {error}"]
    return [*lines, "", f"Raw data: [{result.name}.json]({result.name}.json)"]


def _plot(series: Series, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
    for label, values in series.lines.items():
        style = "steps-post" if series.steps else "default"
        axes.plot(series.x, values, label=label, linewidth=1.2, drawstyle=style)
    axes.set(title=series.title, xlabel=series.x_label, ylabel=series.y_label)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if len(series.lines) > 1:
        axes.legend()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
