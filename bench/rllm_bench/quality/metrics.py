"""Perplexity, divergence and agreement from per-token scores, as llama-perplexity defines them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rllm_bench.quality.rows import Scores

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its standard error."""

    value: float
    error: float


@dataclass(frozen=True, slots=True)
class Divergence:
    """One variant against the reference over ``num_tokens`` scored tokens."""

    num_tokens: int
    ppl: Estimate
    ppl_base: Estimate
    ln_ppl_ratio: Estimate
    ppl_ratio: Estimate
    correlation: float
    kld_mean: Estimate
    kld_median: float
    kld_p90: float
    kld_p95: float
    kld_p99: float
    kld_p999: float
    kld_max: float
    p_diff_mean: Estimate
    p_diff_rms: Estimate
    same_top: Estimate


def mean(values: Doubles) -> Estimate:
    """Mean and its standard error; the error is 0 for ten values or fewer, as in llama-perplexity."""
    if len(values) == 0:
        return Estimate(0.0, 0.0)
    average = float(values.mean())
    variance = float((values * values).mean()) - average * average
    error = math.sqrt(variance / (len(values) - 1)) if variance > 0 and len(values) > 10 else 0.0
    return Estimate(average, error)


def percentile(ordered: Doubles, fraction: float) -> float:
    """Linear between the two nearest; ``ordered`` ascends."""
    return float(np.percentile(ordered, 100 * fraction, method="linear"))


def perplexity(nll: Doubles) -> Estimate:
    average = mean(nll)
    value = math.exp(average.value)
    return Estimate(value, value * average.error)


def divergence(scores: Scores) -> Divergence:
    """All figures of one variant. Raises ValueError on fewer than 100 tokens: too few for statistics."""
    count = len(scores)
    if count < 100:
        raise ValueError(f"{count} scored tokens are too few: 100 are needed")
    nll, nll_base, kld, p_diff = (
        scores[name].astype(np.float64) for name in ("nll", "nll_base", "kld", "p_diff")
    )
    ratio, correlation = _ln_ratio(nll, nll_base)
    ratio_value = math.exp(ratio.value)
    ordered = np.sort(kld)
    same = float(scores["same_top"].mean(dtype=np.float64))
    return Divergence(
        num_tokens=count,
        ppl=perplexity(nll),
        ppl_base=perplexity(nll_base),
        ln_ppl_ratio=ratio,
        ppl_ratio=Estimate(ratio_value, ratio_value * ratio.error),
        correlation=correlation,
        kld_mean=mean(kld),
        kld_median=percentile(ordered, 0.5),
        kld_p90=percentile(ordered, 0.90),
        kld_p95=percentile(ordered, 0.95),
        kld_p99=percentile(ordered, 0.99),
        kld_p999=percentile(ordered, 0.999),
        kld_max=float(ordered[-1]),
        p_diff_mean=mean(p_diff),
        p_diff_rms=_root_mean_square(p_diff),
        same_top=Estimate(same, math.sqrt(same * (1 - same) / (count - 1))),
    )


def _ln_ratio(nll: Doubles, nll_base: Doubles) -> tuple[Estimate, float]:
    """ln(PPL(Q)/PPL(base)) with the error of a paired difference, and the correlation of the pair."""
    ours, base = mean(nll), mean(nll_base)
    covariance = (float((nll * nll_base).mean()) - ours.value * base.value) / (len(nll) - 1)
    variance = ours.error**2 + base.error**2 - 2 * covariance
    product = ours.error * base.error
    correlation = covariance / product if product > 0 else 1.0
    return Estimate(ours.value - base.value, math.sqrt(max(variance, 0.0))), correlation


def _root_mean_square(values: Doubles) -> Estimate:
    square = mean(values * values)
    root = math.sqrt(square.value)
    return Estimate(root, 0.5 / root * square.error if root > 0 else 0.0)
