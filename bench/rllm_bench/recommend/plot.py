"""Cost (or speed, without a price) against quality."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rllm_bench.recommend.decide import Decision
from rllm_bench.recommend.options import Option


def cost_against_quality(decision: Decision, path: Path) -> bool:
    """One point per subject, at its best load; hollow where it is not accepted. False if nothing can be "
    "drawn."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    points = _points(decision)
    if not points:
        return False
    priced = all(option.cost_per_1k is not None for _, option, _ in points)
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for kld, option, accepted in points:
        height = (option.cost_per_1k or 0.0) if priced else option.good_tps
        axes.plot(kld, height, "o", fillstyle="full" if accepted else "none", markersize=8)
        axes.annotate(option.subject, (kld, height), xytext=(5, 5), textcoords="offset points", fontsize=8)
    axes.set_xscale("symlog", linthresh=1e-4)
    axes.set_xlabel("mean KL divergence from the reference, nats (left is better)")
    axes.set_ylabel(
        "cost per 1,000 output tokens within the goal, $" if priced else "output tokens/s within the goal"
    )
    axes.set_title("Down and to the left is better; hollow: not accepted", fontsize=10, loc="left")
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True


def _points(decision: Decision) -> Sequence[tuple[float, Option, bool]]:
    best: dict[str, tuple[Option, bool]] = {}
    for option in decision.accepted:
        best.setdefault(option.subject, (option, True))
    for one in decision.rejected:
        best.setdefault(one.option.subject, (one.option, False))
    return [
        (option.quality.mean_kld, option, accepted)
        for option, accepted in best.values()
        if option.quality is not None and option.quality.mean_kld is not None and option.good_tps > 0
    ]
