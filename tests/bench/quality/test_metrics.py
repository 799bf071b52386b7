"""The summary figures on data whose answers are known."""

import math

import numpy as np
import pytest

from rllm_bench.quality import metrics, rows, stats


def scores(count: int, seed: int = 0) -> rows.Scores:
    rng = np.random.default_rng(seed)
    out = np.zeros(count, rows.SCORE)
    out["nll_base"] = rng.exponential(2, count)
    out["nll"] = out["nll_base"] + rng.normal(0.01, 0.1, count)
    out["kld"] = rng.exponential(0.01, count)
    out["p_diff"] = np.exp(-out["nll"]) - np.exp(-out["nll_base"])
    out["same_top"] = rng.random(count) < 0.9
    return out


def test_perplexity_is_the_exponential_of_the_mean() -> None:
    assert metrics.perplexity(np.full(50, math.log(7.0))).value == pytest.approx(7.0)


def test_the_ratio_error_is_that_of_the_paired_difference() -> None:
    sample = scores(5000)
    result = metrics.divergence(sample)
    difference = sample["nll"].astype(float) - sample["nll_base"].astype(float)
    assert result.ln_ppl_ratio.value == pytest.approx(difference.mean(), rel=1e-6)
    assert result.ln_ppl_ratio.error == pytest.approx(difference.std() / math.sqrt(len(sample) - 1), rel=1e-3)
    assert result.ppl_ratio.value == pytest.approx(result.ppl.value / result.ppl_base.value)


def test_percentiles_and_shares() -> None:
    sample = scores(1000)
    sample["kld"] = np.arange(1000)
    sample["same_top"] = np.arange(1000) < 910
    result = metrics.divergence(sample)
    assert (result.kld_median, result.kld_max) == (499.5, 999)
    assert result.kld_p99 == pytest.approx(989.01)
    assert result.same_top.value == pytest.approx(0.91)
    assert result.same_top.error == pytest.approx(math.sqrt(0.91 * 0.09 / 999))


def test_identical_models_differ_by_nothing() -> None:
    sample = scores(500)
    sample["nll"] = sample["nll_base"]
    sample["p_diff"] = 0
    result = metrics.divergence(sample)
    assert result.ppl_ratio.value == 1
    assert result.p_diff_rms == metrics.Estimate(0, 0)
    assert result.correlation == pytest.approx(1)


def test_too_few_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        metrics.divergence(scores(99))


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (1, 9, 0.021484375), (10, 0, 0.001953125)],
)
def test_mcnemar_is_the_exact_binomial_test(lost: int, gained: int, p: float) -> None:
    assert stats.mcnemar(lost, gained) == pytest.approx(p)
    assert stats.mcnemar(gained, lost) == pytest.approx(p)


def test_mcnemar_survives_many_flips() -> None:
    assert 0 < stats.mcnemar(1000, 1200) < 0.001


def test_wilson_stays_inside_the_unit_interval() -> None:
    interval = stats.wilson(10, 10)
    assert interval.high == pytest.approx(1)
    assert interval.low == pytest.approx(0.7225, abs=1e-4)
    assert stats.wilson(50, 100).low == pytest.approx(0.4038, abs=1e-4)
