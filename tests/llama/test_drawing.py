"""Draws follow the distribution they claim, filter by filter."""

from __future__ import annotations

import numpy as np
import pytest

from rllm.backends.llama.drawing import (
    MOST_OF_TOP,
    Drawer,
    Top,
    can_draw,
    draw_of_top,
    needed_of_top,
)
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


def top_of(row: np.ndarray, count: int) -> Top:
    tokens = np.argsort(-row, kind="stable")[:count]
    total = float(np.exp(row.astype(np.float64) - row.max()).sum())
    return Top(row[tokens], tokens.tolist(), total)


@pytest.mark.parametrize("spread", [0.01, 1.0, 6.0], ids=["flat", "usual", "peaked"])
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0.0),
        SamplingParams(top_k=1),
        SamplingParams(top_k=40, top_p=0.95, min_p=0.05, temperature=0.8),
        SamplingParams(top_k=64, temperature=2.0),
        SamplingParams(top_p=0.9),
        SamplingParams(top_p=0.01, temperature=1.5),
        SamplingParams(min_p=0.1),
        SamplingParams(min_p=0.02, top_p=0.8, temperature=0.7),
    ],
    ids=repr,
)
def test_the_highest_give_the_same_draw_as_the_row_or_none(spread: float, params: SamplingParams) -> None:
    row, drawer = make_row(spread), Drawer(VOCAB)
    needed = needed_of_top(params, 0)
    assert 0 < needed <= MOST_OF_TOP
    top = top_of(row, needed)
    for uniform in UNIFORMS[::40]:
        token = draw_of_top(top, params, (), lambda at=float(uniform): at)
        expected = int(row.argmax()) if params.is_greedy else drawer.draw(row, params, float(uniform))
        assert token in (expected, None)
        assert token is not None or params.top_k == 0
    if spread == 6.0:
        assert token is not None


def test_no_number_is_taken_where_nothing_is_drawn() -> None:
    flat = make_row(0.01)
    taken: list[float] = []
    assert (
        draw_of_top(top_of(flat, 64), SamplingParams(top_p=0.9), (), lambda: taken.append(0.5) or 0.5) is None
    )
    assert not taken


def test_banned_tokens_leave_too_few_or_the_next() -> None:
    row = make_row(1.0)
    top, greedy = top_of(row, 3), SamplingParams(temperature=0.0)
    assert draw_of_top(top, greedy, top.tokens[:2], float) == top.tokens[2]
    assert draw_of_top(top, greedy, top.tokens, float) is None
    assert draw_of_top(top, SamplingParams(top_k=2), top.tokens[:2], float) is None
    assert needed_of_top(SamplingParams(top_k=60), 5) == 0
    assert needed_of_top(SamplingParams(), 0) == 0
