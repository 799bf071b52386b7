"""Quality against size, as a picture."""

from __future__ import annotations

from pathlib import Path

from rllm_bench.quality.results import QualityRun


def quality_against_size(run: QualityRun, path: Path) -> bool:
    """Mean divergence over file size, with the noise floor. False if nothing was measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    points = [(r.model, r.divergence.kld_mean) for r in run.variants if r.divergence is not None]
    if not points:
        return False
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for model, kld in points:
        size = model.file_bytes / 1e6
        axes.errorbar(size, kld.value, yerr=1.96 * kld.error, fmt="o", capsize=3)
        axes.annotate(model.name, (size, kld.value), xytext=(5, 5), textcoords="offset points", fontsize=8)
    if run.floor.mean_kld > 0:
        axes.axhline(run.floor.mean_kld, linestyle=":", color="grey")
        axes.annotate(
            "noise floor",
            (0.99, run.floor.mean_kld),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
        )
    axes.margins(x=0.15, y=0.1)
    axes.set_yscale("log")
    axes.set_xlabel("file size, MB")
    axes.set_ylabel("mean KL divergence from the reference, nats")
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True
