"""Draws follow the distribution they claim, filter by filter."""

from __future__ import annotations

import numpy as np
import pytest

from rllm.backends.llama.drawing import Drawer, can_draw
from rllm.engine.types import SamplingParams

UNIFORMS = (np.arange(4_000) + 0.5) / 4_000
VOCAB = 700  # not a multiple of the block


def make_row(spread: float, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, VOCAB).astype(np.float32)


def expected(row: np.ndarray, params: SamplingParams) -> np.ndarray:
    """By the definition: sort, cut, scale."""
    exact = row.astype(np.float64)
    probs = np.exp(exact - exact.max())
    probs /= probs.sum()
    order = np.argsort(-probs, kind="stable")
    if params.top_k > 0:
        probs[order[params.top_k :]] = 0.0
        probs /= probs.sum()
    kept = np.zeros(VOCAB, dtype=bool)
    count = VOCAB if params.top_p >= 1 else int(np.searchsorted(np.cumsum(probs[order]), params.top_p)) + 1
    kept[order[:count]] = True
    kept &= (probs > 0) & (probs >= params.min_p * probs.max())
    scaled = np.where(kept, np.exp((exact - exact.max()) / params.temperature), 0.0)
    return scaled / scaled.sum()


@pytest.mark.parametrize("spread", [0.01, 1.0, 6.0], ids=["flat", "usual", "peaked"])
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.3),
        SamplingParams(temperature=2.0),
        SamplingParams(top_p=0.9),
        SamplingParams(top_p=0.01, temperature=1.5),
        SamplingParams(min_p=0.1),
        SamplingParams(min_p=0.02, top_p=0.8, temperature=0.7),
        SamplingParams(top_k=1),
        SamplingParams(top_k=2, temperature=2.0),
        SamplingParams(top_k=40, top_p=0.95, min_p=0.05, temperature=0.8),
        SamplingParams(top_k=100, top_p=0.5),
    ],
    ids=repr,
)
def test_draws_follow_the_distribution(spread: float, params: SamplingParams) -> None:
    row, drawer = make_row(spread), Drawer(VOCAB)
    assert can_draw(params)
    counts = np.bincount([drawer.draw(row, params, u) for u in UNIFORMS], minlength=VOCAB)
    wanted = expected(row, params)
    assert not counts[wanted == 0].any()
    # evenly spaced numbers hit a token of probability p between n*p - 1 and n*p + 1 times
    assert np.abs(counts - wanted * len(UNIFORMS)).max() <= 2.5


def test_the_nucleus_may_reach_far_down() -> None:
    """Top-p close to 1 over a long tail needs tokens that are looked at only then."""
    row = np.concatenate([[11.5], np.zeros(VOCAB - 1)]).astype(np.float32)
    params = SamplingParams(top_p=0.999)
    drawn = {Drawer(VOCAB).draw(row, params, u) for u in UNIFORMS}
    assert len(drawn) > 1


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("params", [SamplingParams(temperature=1e-30), SamplingParams(top_p=1e-9)], ids=repr)
def test_extremes_draw_the_maximum(uniform: float, params: SamplingParams) -> None:
    row = make_row(2.0)
    assert Drawer(VOCAB).draw(row, params, uniform) == int(row.argmax())


def test_the_last_token_can_be_drawn_and_none_after_it() -> None:
    row = np.full(VOCAB, -30.0, dtype=np.float32)
    row[-1] = 30.0
    for uniform in (1e-9, 0.999999, 1 - 2**-53):
        assert Drawer(VOCAB).draw(row, SamplingParams(), uniform) == VOCAB - 1


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0.0),
        SamplingParams(top_k=101),
        SamplingParams(typical_p=0.5),
        SamplingParams(repetition_penalty=1.2),
    ],
    ids=repr,
)
def test_the_rest_is_left_to_the_native_chain(params: SamplingParams) -> None:
    assert not can_draw(params)
