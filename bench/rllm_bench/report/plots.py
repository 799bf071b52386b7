"""The pictures of a report. Deterministic: the same data give the same bytes."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from rllm_bench.figures.summary import Result, Summary
from rllm_bench.figures.words import number
from rllm_bench.report.checks import is_disturbed

_SHADES = {
    "rllm": ("#0b4f9e", "#2f8be0", "#6fb3ee"),
    "llama-server": ("#b34700", "#f28e2b", "#eab676"),
    "vllm": ("#5b2a86", "#9b5fc9", "#b98fdc"),
    "llama-cpp-python": ("#3d3d3d", "#808080", "#a8a8a8"),
    "url": ("#11623f", "#2fa36f", "#74c79d"),
}
"""One hue per engine, darker for the smaller variants."""
_SHADE_OF = {"q4": 0, "q8": 1, "f16": 2}
"""By what a variant's name begins with: the same in every picture of every report."""
_MARKERS = ("o", "s", "^", "D", "v", "P")
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
}
Metric = Callable[[Result], float | None]


class Look:
    """Colour and marker of every subject: the engine's hue, the variant's shade, and where two share both
    (an engine with other options) a marker and a line of their own."""

    def __init__(self, subjects: Sequence[str]) -> None:
        self._style: dict[str, dict[str, Any]] = {}
        seen: Counter[str] = Counter()
        for name in subjects:
            engine, _, variant = name.partition("/")
            shades = _SHADES.get(engine, _SHADES["url"])
            rank = next((r for begin, r in _SHADE_OF.items() if variant.startswith(begin)), 1)
            colour = shades[rank]
            again, seen[colour] = seen[colour], seen[colour] + 1
            marker = _MARKERS[(rank + again) % len(_MARKERS)]
            self._style[name] = {"color": colour, "marker": marker, "ls": ("-", "--", ":", "-.")[again % 4]}

    def __call__(self, subject: str) -> dict[str, Any]:
        return self._style[subject]


def save(figure: Figure, folder: Path, name: str) -> str:
    """Writes a PNG; returns its name relative to the report."""
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(_STYLE):
        figure.savefig(folder / f"{name}.png", dpi=150, metadata={"Software": None})
    plt.close(figure)
    return f"{folder.name}/{name}.png"


def series(
    summary: Summary, shape: tuple[int, int], metric: Metric
) -> dict[str, list[tuple[float, Result, float]]]:
    """Per subject: load, result and value, for the closed-loop cells of one shape (or the open ones)."""
    rows = [r for r in summary.results if r.values and r.shape == shape]
    mode = "closed" if any(r.load.mode == "closed" for r in rows) else "open"
    lines: dict[str, list[tuple[float, Result, float]]] = {}
    for row in rows:
        value = metric(row)
        at = row.load.concurrency if mode == "closed" else row.load.rate
        if row.load.mode == mode and value is not None and at is not None:
            lines.setdefault(row.subject, []).append((float(at), row, value))
    return {name: sorted(line, key=lambda point: point[0]) for name, line in lines.items()}


def curve(axes: Axes, summary: Summary, look: Look, shape: tuple[int, int], name: str, title: str) -> None:
    """One figure over the load, a line per subject, with intervals where there are any.

    Hollow where others used the machine.
    """
    lines, hollow = series(summary, shape, lambda row: row.get(name)), False
    for subject, line in lines.items():
        xs, ys = [point[0] for point in line], [point[2] for point in line]
        axes.plot(xs, ys, label=subject, lw=1.8, ms=6, **look(subject))
        for x, row, _ in line:
            if is_disturbed(summary, row):
                axes.plot([x], [row[name]], ms=9, mfc="white", mew=2, zorder=5, **look(subject))
                hollow = True
            bounds = row.values[name].interval
            if bounds is not None:
                axes.plot([x, x], [bounds.low, bounds.high], color=look(subject)["color"], lw=3, alpha=0.35)
    _load_axis(axes, sorted({point[0] for line in lines.values() for point in line}), summary, shape)
    axes.set_title(f"{title}; hollow: machine shared" if hollow else title)
    axes.set_ylim(bottom=0)


def _load_axis(axes: Axes, ticks: list[float], summary: Summary, shape: tuple[int, int]) -> None:
    closed = any(r.load.mode == "closed" for r in summary.results if r.shape == shape and r.values)
    if len(ticks) > 1 and ticks[-1] / ticks[0] > 4:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(
        "requests at the same time (closed loop)" if closed else "requests per second offered (open loop)"
    )


def first_page(
    summary: Summary, look: Look, shape: tuple[int, int], sentences: Sequence[str], subtitle: str, footer: str
) -> Figure:
    """The report in one picture: answer, load, machine, two curves, one limitation."""
    with plt.rc_context(_STYLE):
        columns = 4 if len(summary.subjects) <= 8 else 5
        rows = -(-len(summary.subjects) // columns)
        figure = plt.figure(figsize=(11, 7.6))
        top = 0.69 - 0.028 * rows  # the legend stands between the sentences and the curves
        grid = figure.add_gridspec(1, 2, left=0.065, right=0.985, top=top - 0.04, bottom=0.18, wspace=0.2)
        left, right = (figure.add_subplot(grid[0, column]) for column in range(2))
        curve(left, summary, look, shape, "output_tps", "Output tokens/s, all users together")
        curve(right, summary, look, shape, "ttft_p99_ms", "Time to first token, p99 (ms)")
        _log_if_wide(right)
        handles, labels = left.get_legend_handles_labels()
        figure.legend(
            handles,
            [f"{label}{_file_size(summary, label)}" for label in labels],
            loc="upper center",
            bbox_to_anchor=(0.5, 0.72),
            ncol=min(columns, len(labels)),
            fontsize=10 if len(labels) < 5 else 8,
        )
        _paragraphs(figure, sentences, subtitle)
        limits = "\n".join(textwrap.wrap(f"Limitation: {footer}", 150))
        figure.text(0.02, 0.07, limits, fontsize=9.5, va="top", color="#8a1c1c")
        return figure


def _file_size(summary: Summary, subject: str) -> str:
    size = summary.sizes.get(subject)
    return f", {size / 1e6:,.0f} MB" if size else ""


def _paragraphs(figure: Figure, sentences: Sequence[str], subtitle: str) -> None:
    """From the top down, each below the last line of the one before."""
    top = 0.97
    for text, width, size, weight, colour in (
        (sentences[0], 80, 15, "bold", "black"),
        (" ".join(sentences[1:]), 142, 10.5, "normal", "black"),
        (subtitle, 150, 9.5, "normal", "#444444"),
    ):
        lines = textwrap.wrap(text, width)
        figure.text(0.02, top, "\n".join(lines), fontsize=size, va="top", weight=weight, color=colour)
        top -= (len(lines) * size * 1.3 + 7) / 72 / figure.get_figheight()


def _log_if_wide(axes: Axes) -> None:
    values = [y for line in axes.get_lines() for y in np.asarray(line.get_ydata(), dtype=np.float64) if y > 0]
    if values and max(values) / min(values) > 20:
        axes.set_yscale("log")
        axes.set_ylim(min(values) * 0.7, max(values) * 1.4)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def over_load(summary: Summary, look: Look, shape: tuple[int, int]) -> Figure:
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
        curve(axes[0], summary, look, shape, "output_tps", "Output tokens per second")
        curve(axes[1], summary, look, shape, "ttft_p99_ms", "Time to first token, p99 (ms)")
        curve(axes[2], summary, look, shape, "tpot_p99_ms", "Time per output token, p99 (ms)")
        for one in axes[1:]:
            _log_if_wide(one)
        _legend_below(figure, axes[0], 6)
        figure.suptitle(f"{shape[0]}-token prompts, {shape[1]}-token answers", x=0.01, ha="left", fontsize=12)
        return figure


def over_length(summary: Summary, look: Look, axis: Literal["prompt", "output"]) -> Figure | None:
    """Over the prompt's length the first token, over the answer's the whole of it. Needs at least two
    lengths; one panel per load, the lightest and the heaviest."""
    place = 0 if axis == "prompt" else 1
    name, title = ("ttft_p50_ms", "TTFT p50") if axis == "prompt" else ("e2e_p50_ms", "whole answer p50")
    closed = [r for r in summary.results if r.load.mode == "closed" and name in r.values]
    users = sorted({r.load.concurrency or 1 for r in closed})
    if len({r.shape[place] for r in closed}) < 2:
        return None
    shown = users if len(users) < 2 else [users[0], users[-1]]
    other = min(r.shape[1 - place] for r in closed)
    with plt.rc_context(_STYLE):
        figure, panels = plt.subplots(
            1, len(shown), figsize=(5.5 * len(shown), 4.2), layout="constrained", squeeze=False
        )
        for axes, count in zip(panels[0], shown, strict=True):
            for subject in summary.subjects:
                points = sorted(
                    (r.shape[place], r[name])
                    for r in closed
                    if (r.subject, r.load.concurrency, r.shape[1 - place]) == (subject, count, other)
                )
                if points:
                    axes.plot(*zip(*points, strict=True), label=subject, lw=1.8, ms=6, **look(subject))
            axes.set_title(f"{title} (ms), {count} at the same time")
            axes.set_xlabel(f"{axis} tokens ({'answers' if axis == 'prompt' else 'prompts'} of {other})")
            axes.set_ylim(bottom=0)
            _log_if_wide(axes)
        _legend_below(figure, panels[0][0], 5)
        return figure


def _legend_below(figure: Figure, axes: Axes, columns: int) -> None:
    """Outside of all panels, so that it neither hides a curve nor is cut off."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncol=min(columns, len(labels)), fontsize=9)


def pareto(summary: Summary, look: Look, shape: tuple[int, int]) -> Figure | None:
    """Throughput of all against the speed that one user sees: up and to the right is better."""
    lines = series(summary, shape, lambda row: row.get("output_tps"))
    if not any(len(line) > 1 for line in lines.values()):
        return None
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(7.5, 5.4), layout="constrained")
        for subject, line in lines.items():
            points = [
                (1000 / row["tpot_p50_ms"], value, load)
                for load, row, value in line
                if row.get("tpot_p50_ms")
            ]
            if not points:
                continue
            style = look(subject)
            axes.plot([p[0] for p in points], [p[1] for p in points], label=subject, lw=1.5, ms=11, **style)
            for x, y, load in points:  # inside its marker: labels of neighbours cannot overprint
                axes.annotate(f"{load:g}", (x, y), ha="center", va="center", fontsize=6, color="white")
        axes.set_xlabel("tokens per second for one user (1 / TPOT p50)")
        axes.set_ylabel("output tokens per second, all users")
        axes.set_title(f"Throughput against interactivity, {shape[0]} → {shape[1]} tokens (numbers: load)")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        _legend_below(figure, axes, 3)
        return figure


def cost_quality(points: Sequence[tuple[str, float, float]], look: Look, quality_name: str) -> Figure | None:
    """``points``: subject, USD per 1k output tokens, quality figure (lower is better)."""
    if len(points) < 2:
        return None
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(7, 4.6), layout="constrained")
        for subject, price, quality in points:
            axes.plot([price], [quality], ms=10, label=subject, **{**look(subject), "ls": "none"})
        axes.set_xlabel("USD per 1k output tokens at the heaviest load")
        axes.set_ylabel(quality_name)
        axes.set_title("Cost against quality: down and to the left is better")
        axes.margins(0.2)
        _legend_below(figure, axes, 3)
        return figure
