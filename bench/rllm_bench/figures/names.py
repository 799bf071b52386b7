"""The figures that there are: how a page calls each, which way is better, and how it is resampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from rllm_bench.figures import metrics, stats
from rllm_bench.figures.metrics import CellData
from rllm_bench.figures.stats import PERCENTILES, Array

Draws = Callable[[CellData, np.random.Generator, int], Array | None]
Slos = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    """As in the summary of a cell."""
    title: str
    higher_is_better: bool = False
    draws: Draws | None = None
    """Resamples of the figure of one cell; None where it has no interval."""

    def ratio(self, ours: float, theirs: float) -> float:
        """Above 1 where ours is better."""
        return ours / theirs if self.higher_is_better else theirs / ours


def figure(name: str, slos: Slos | None = None) -> Figure:
    """The figure of that name; one that nobody has described is a time, of which less is better."""
    return _known(slos or {}).get(name) or Figure(name, name)


def _known(slos: Slos) -> dict[str, Figure]:
    found = [*_PLAIN, *_LATENCIES]
    for goal, limits in slos.items():
        found.append(
            Figure(f"goodput_{goal}_rps", f"requests/s within {goal}", True, partial(_goodput, limits))
        )
    return {one.name: one for one in found}


def _sample(
    cell: CellData, rng: np.random.Generator, count: int, *, kind: str, q: int | None
) -> Array | None:
    data = {"ttft": cell.ttft_ms, "tpot": cell.tpot_ms, "e2e": cell.e2e_ms}[kind]
    statistic = stats.mean if q is None else stats.percentile(q)
    return stats.resample(data, statistic, rng, count) if len(data) else None


def _gaps(cell: CellData, rng: np.random.Generator, _count: int, *, q: int) -> Array | None:
    return stats.resample_clusters(cell.itl_ms, q, rng) if cell.itl_ms else None


def _speed(cell: CellData, rng: np.random.Generator, count: int) -> Array:
    return stats.resample(cell.block_output_tps, stats.mean, rng, count)


def _goodput(slo: Mapping[str, float], cell: CellData, rng: np.random.Generator, count: int) -> Array | None:
    begin, end = cell.window
    due = [r for r in cell.requests if begin <= r.scheduled_us / 1e6 <= end]
    if not due or end <= begin:
        return None
    met = np.array([float(r.ok and metrics.meets(r, slo)) for r in due])
    return stats.resample(met, stats.mean, rng, count) * (len(due) / (end - begin))


def _latency(kind: str, title: str, q: int | None) -> Figure:
    draws: Draws | None = partial(_sample, kind=kind, q=q) if kind != "itl" else None
    if kind == "itl" and q is not None:
        draws = partial(_gaps, q=q)
    which = "mean" if q is None else f"p{q}"
    return Figure(f"{kind}_{which}_ms", f"{title} {which} (ms)", draws=draws)


_LATENCIES = [
    _latency(kind, title, q)
    for kind, title in (("ttft", "TTFT"), ("tpot", "TPOT"), ("itl", "ITL"), ("e2e", "whole answer"))
    for q in (None, *PERCENTILES)
]
_PLAIN = (
    Figure("output_tps", "output tokens/s", True, _speed),
    Figure("total_tps", "tokens/s in and out", True),
    Figure("request_rps", "requests/s", True),
    Figure("finished", "answers in full", True),
    Figure("later_ttft_p50_ms", "TTFT p50 from turn 2 on (ms)"),
    Figure("later_ttft_p95_ms", "TTFT p95 from turn 2 on (ms)"),
    Figure("beside_itl_p50_ms", "streams' ITL p50 meanwhile (ms)"),
    Figure("beside_itl_p99_ms", "streams' ITL p99 meanwhile (ms)"),
    Figure("newcomer_ttft_p50_ms", "newcomer's TTFT p50 (ms)"),
    Figure("tokens_per_step", "tokens per decode step", True),
    Figure("prefix_hit_share", "prompt tokens from cache", True),
)
