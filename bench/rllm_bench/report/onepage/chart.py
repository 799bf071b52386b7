"""One picture of a table: tokens per second, and the 99th percentile of pauses, over users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from rllm_bench.figures.keys import UnknownFigure
from rllm_bench.figures.sources import Catalog
from rllm_bench.report.onepage.spec import Row, Table
from rllm_bench.report.plots import Look, save

_STYLE: Any = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}


def draw(catalog: Catalog, table: Table, folder: Path, name: str) -> str:
    """Writes NAME.png below ``folder``; returns the PNG's path relative to its parent."""
    look = Look([row.subject for row in table.rows])
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
        for axis, metric, title in (
            (axes[0], "output_tps", "output tokens per second"),
            (axes[1], "itl_p99_ms", "pause between tokens, p99, ms"),
        ):
            for row in table.rows:
                points = _points(catalog, table, row, metric)
                if points:
                    axis.plot(*zip(*points, strict=True), label=row.name, **look(row.subject))
            axis.set_title(title)
            axis.set_xscale("log", base=2)
            axis.set_xticks(table.loads, [str(users) for users in table.loads])
            axis.set_xlabel("users")
            axis.set_ylim(bottom=0)
        axes[0].legend(fontsize=8)
        return save(figure, folder, name)


def _points(catalog: Catalog, table: Table, row: Row, metric: str) -> list[tuple[int, float]]:
    source = catalog.source(row.source or table.source)
    points = []
    for users in table.loads:
        try:
            points.append((users, float(source.find(f"{row.subject} {table.group(users)} {metric}")[0])))
        except UnknownFigure:
            continue
    return points
