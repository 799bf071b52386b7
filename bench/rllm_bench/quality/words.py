"""Figures in plain words."""

from __future__ import annotations

import math

from rllm_bench.quality.choice import Flips
from rllm_bench.quality.gate import Check, Verdict
from rllm_bench.quality.metrics import Estimate
from rllm_bench.quality.results import Floor, VariantResult


def one_in(share: float) -> str:
    """A small share as "1 in N"."""
    return "none" if share <= 0 else f"1 in {1 / share:,.0f}" if share < 0.4 else f"{share:.0%}"


def changed_tokens(same_top: Estimate) -> str:
    share = 1 - same_top.value
    if share <= 0:
        return "no most likely token changes"
    number = round(1 / share)
    return f"1 token in {number} changes" if number > 1 else f"{share:.0%} of the tokens change"


def surprise(ratio: Estimate) -> str:
    """What a ratio of perplexities means."""
    change = ratio.value - 1
    if abs(change) <= 2 * ratio.error:
        return "predicts the text as well as the reference, within the error"
    direction = "harder" if change > 0 else "easier"
    return f"finds the text {abs(change):.1%} {direction} to predict"


def flips_in_words(flips: Flips) -> str:
    if flips.flipped == 0:
        return f"all {flips.total} choices as before"
    verdict = "a significant change" if flips.p_value < 0.05 else "no significant change in either direction"
    return (
        f"{flips.flipped} of {flips.total} choices flip ({one_in(flips.flipped / flips.total)}): "
        f"{flips.lost} become wrong, {flips.gained} become right; {verdict} (p = {flips.p_value:.2g})"
    )


def is_noise(result: VariantResult, floor: Floor) -> bool:
    """Whether the divergence is no larger than that of the reference from itself."""
    return result.divergence is not None and result.divergence.kld_mean.value <= floor.mean_kld


def verdict_in_words(verdict: Verdict) -> str:
    if verdict.passed:
        return f"passes “{verdict.limits}”"
    return f"fails “{verdict.limits}”: " + "; ".join(map(failure, verdict.failures))


def failure(check: Check) -> str:
    if check.value is None:
        return f"{check.what} was not measured"
    side = "above" if check.value > check.limit else "below"
    return f"{check.what} {check.value:.4g} is {side} {check.limit:g}"


def paragraph(result: VariantResult, floor: Floor, verdict: Verdict) -> str:
    """One variant in sentences."""
    parts = []
    if result.same_top is not None:
        parts.append(changed_tokens(result.same_top))
    if result.ppl_ratio is not None:
        parts.append(surprise(result.ppl_ratio))
    if is_noise(result, floor):
        parts.append("its divergence is within the noise floor: call it the same model")
    if result.pairs is not None:
        parts.append(flips_in_words(result.pairs))
    if result.greedy is not None and result.greedy.lengths:
        count = len(result.greedy.lengths)
        parts.append(
            f"{result.greedy.exact} of {count} greedy texts stay word for word, the median text parts after "
            f"{result.greedy.median_agreed:.0f} tokens"
        )
    if result.problems is not None:
        parts.append(f"problems: {flips_in_words(result.problems)}")
    return f"**{result.model.name}** {verdict_in_words(verdict)}. " + ". ".join(map(_capital, parts)) + "."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def estimate(value: Estimate | None, digits: int = 4, scale: float = 1.0) -> str:
    """Value and standard error; in powers of ten where the digits would show nothing but zeros."""
    if value is None or math.isnan(value.value):
        return "-"
    shown, error = scale * value.value, scale * value.error
    if 0 < abs(shown) < 10.0**-digits:
        return f"{shown:.1e} ± {error:.1e}"
    return f"{shown:.{digits}f} ± {error:.{digits}f}"
