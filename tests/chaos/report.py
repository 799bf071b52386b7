"""The chaos report: Markdown with plots, and everything it was made from as JSON."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib
import orjson
from tabulate import tabulate

from tests.chaos.result import Result, Series

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def write(results: list[Result], folder: Path, command: str, facts: dict[str, Any]) -> Path:
    """One file per scenario's raw data, one image per series, and report.md."""
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        options = orjson.OPT_NON_STR_KEYS
        (folder / f"{result.name}.json").write_bytes(
            orjson.dumps(asdict(result), default=str, option=options)
        )
    path = folder / "report.md"
    path.write_text("\n".join(_lines(results, folder, command, facts)) + "\n")
    return path


def machine() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load average at the start": " ".join(f"{value:.1f}" for value in os.getloadavg()),
        "python": platform.python_version(),
    }


def _lines(results: list[Result], folder: Path, command: str, facts: dict[str, Any]) -> list[str]:
    kept = sum(check.kept for result in results for check in result.checks)
    total = sum(len(result.checks) for result in results)
    lines = [
        "# A bad day: chaos report",
        "",
        f"`{command}`",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        "",
        f"**{kept} of {total} promises kept.**",
        "",
        tabulate(
            [[result.title, "kept" if result.kept else "BROKEN"] for result in results],
            ["scenario", ""],
            tablefmt="github",
        ),
    ]
    for result in results:
        lines += ["", *_section(result, folder)]
    return lines


def _section(result: Result, folder: Path) -> list[str]:
    rows = [["yes" if c.kept else "**NO**", c.promise, c.measured] for c in result.checks]
    lines = [f"## {result.title}", "", result.setup, ""]
    lines += [tabulate(rows, ["kept", "promise", "measured"], tablefmt="github")]
    for title, columns, table in result.tables:
        lines += ["", f"### {title}", "", tabulate(table, columns, tablefmt="github")]
    for number, series in enumerate(result.series):
        image = f"{result.name}-{number}.svg"
        _plot(series, folder / image)
        lines += ["", f"![{series.title}]({image})"]
    lines += [line for note in result.notes for line in ("", note)]
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
    figure.savefig(path)
    plt.close(figure)
