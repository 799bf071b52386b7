"""Drawing first and asking afterwards is drawing from what truncation leaves, masked."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from numpy.typing import NDArray

from rllm.backends.llama.drawing import Drawer
from rllm.engine.constraint import draw
from rllm.engine.types import SamplingParams

VOCAB = 300
NUM_DRAWS = 6_000
MOST_CHI_SQUARE = 3.1
"""Standard deviations of the statistic from its mean, the number of degrees of freedom."""


class Allowed:
    """A matcher for one token."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.bits = np.zeros(VOCAB, dtype=bool)
        self.bits[list(tokens)] = True
        self.num_asked = 0

    def allows(self, token: int) -> bool:
        self.num_asked += 1
        return bool(self.bits[token])

    def consume(self, token: int) -> None: ...

    def forced(self) -> Sequence[int]:
        return ()

    is_complete = is_over = False


class NumpyRow:
    """Implements `rllm.engine.constraint.Row` in the plainest way."""

    def __init__(
        self, row: NDArray[np.float32], params: SamplingParams, allowed: Allowed, random: Random
    ) -> None:
        self._row, self._params, self._bits, self._random = row, params, allowed.bits, random
        self._drawer = Drawer(VOCAB)
        self.num_masked = 0

    def draw(self) -> int:
        return self._draw(self._row)

    def draw_allowed(self) -> int | None:
        kept = truncated(self._row, self._params)
        kept[~self._bits] = 0.0
        if not kept.any():
            return None
        self.num_masked += 1
        return int(np.searchsorted(np.cumsum(kept / kept.sum()), self._random.random(), side="right"))

    def draw_masked(self) -> int:
        self.num_masked += 1
        return self._draw(np.where(self._bits, self._row, -np.inf).astype(np.float32))

    def _draw(self, row: NDArray[np.float32]) -> int:
        if self._params.is_greedy:
            return int(row.argmax())
        return self._drawer.draw(row, self._params, self._random.random())


def truncated(row: NDArray[np.float32], params: SamplingParams) -> NDArray[np.float64]:
    """Probabilities after top-k, top-p and min-p, then the temperature, by the definition."""
    exact = row.astype(np.float64)
    if params.is_greedy:
        return np.where(np.arange(VOCAB) == exact.argmax(), 1.0, 0.0)
    probs = np.exp(exact - exact.max())
    probs /= probs.sum()
    order = np.argsort(-probs, kind="stable")
    if params.top_k > 0:
        probs[order[params.top_k :]] = 0.0
        probs /= probs.sum()
    count = VOCAB if params.top_p >= 1 else int(np.searchsorted(np.cumsum(probs[order]), params.top_p)) + 1
    kept = np.zeros(VOCAB, dtype=bool)
    kept[order[:count]] = True
    kept &= (probs > 0) & (probs >= params.min_p * probs.max())
    scaled = np.where(kept, np.exp((exact - exact.max()) / params.temperature), 0.0)
    return np.asarray(scaled / scaled.sum())


def masked(row: NDArray[np.float32], params: SamplingParams, allowed: Allowed) -> NDArray[np.float64]:
    """What always masking draws from: truncate, then mask; nothing left: mask, then truncate."""
    kept = np.where(allowed.bits, truncated(row, params), 0.0)
    if not kept.any():
        kept = truncated(np.where(allowed.bits, row, -1e30).astype(np.float32), params)
    return kept / kept.sum()


def make_row(seed: int = 5) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 2.0, VOCAB).astype(np.float32)


def highest(count: int) -> list[int]:
    return [int(token) for token in np.argsort(-make_row())[:count]]


MASKS = {
    "every second token": range(0, VOCAB, 2),
    "all": range(VOCAB),
    "all but the likeliest": [token for token in range(VOCAB) if token not in highest(3)],
    "a few of the likeliest": highest(12)[2::3],
    "none that truncation keeps": highest(VOCAB)[200:],
    "one": [highest(VOCAB)[90]],
}
PARAMS = [
    SamplingParams(),
    SamplingParams(top_p=0.5),
    SamplingParams(top_p=0.5, temperature=2.0),
    SamplingParams(temperature=0.6, min_p=0.05),
    SamplingParams(top_k=20, top_p=0.9),
]


@pytest.mark.parametrize("tokens", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("params", PARAMS, ids=repr)
def test_the_distribution_is_that_of_always_masking(tokens: Sequence[int], params: SamplingParams) -> None:
    row, allowed, random = make_row(), Allowed(tokens), Random(11)
    asked = NumpyRow(row, params, allowed, random)
    counts = np.bincount([draw(asked, allowed) for _ in range(NUM_DRAWS)], minlength=VOCAB)
    wanted = masked(row, params, allowed) * NUM_DRAWS
    assert not counts[wanted == 0].any()
    assert deviation(counts, wanted) < MOST_CHI_SQUARE


def deviation(counts: NDArray[np.int64], wanted: NDArray[np.float64]) -> float:
    """Of the chi-square statistic from its mean, in standard deviations; rare tokens are counted together."""
    often = wanted >= 5
    cells = np.append(wanted[often], wanted[~often].sum())
    found = np.append(counts[often], counts[~often].sum())
    cells, found = cells[cells > 0], found[cells > 0]
    freedom = len(cells) - 1
    if freedom == 0:
        return 0.0
    return float((((found - cells) ** 2 / cells).sum() - freedom) / np.sqrt(2 * freedom))


def test_the_statistic_would_notice() -> None:
    """Redrawing with the first draw's random number, a mistake easily made, is found out."""
    row, allowed, random = make_row(), Allowed(MASKS["every second token"]), Random(11)

    def wrong() -> int:
        uniform = random.random()
        token = Drawer(VOCAB).draw(row, SamplingParams(), uniform)
        kept = masked(row, SamplingParams(), allowed)
        if allowed.allows(token):
            return token
        return int(np.searchsorted(np.cumsum(kept), uniform, side="right"))

    counts = np.bincount([wrong() for _ in range(NUM_DRAWS)], minlength=VOCAB)
    assert deviation(counts, masked(row, SamplingParams(), allowed) * NUM_DRAWS) > 3 * MOST_CHI_SQUARE


@pytest.mark.parametrize("tokens", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("seed", range(20))
def test_greedy_is_the_highest_allowed(tokens: Sequence[int], seed: int) -> None:
    row, allowed, greedy = make_row(seed), Allowed(tokens), SamplingParams(temperature=0.0)
    drawn = draw(NumpyRow(row, greedy, allowed, Random(0)), allowed)
    assert drawn == int(np.where(allowed.bits, row, -np.inf).argmax())


@pytest.mark.parametrize("params", PARAMS, ids=repr)
def test_the_same_seed_draws_the_same(params: SamplingParams) -> None:
    def text(seed: int) -> list[int]:
        allowed, random = Allowed(MASKS["every second token"]), Random(seed)
        return [draw(NumpyRow(make_row(i), params, allowed, random), allowed) for i in range(50)]

    assert text(3) == text(3)
    assert text(3) != text(4)


def test_what_is_allowed_is_asked_for_once_and_never_masked() -> None:
    allowed = Allowed(MASKS["all"])
    row = NumpyRow(make_row(), SamplingParams(top_p=0.9), allowed, Random(1))
    for _ in range(50):
        draw(row, allowed)
    assert (allowed.num_asked, row.num_masked) == (50, 0)
