"""Random draws from a row of logits without visiting the vocabulary in sorted order.

llama.cpp's chain copies 12 bytes per token and, for top-p without top-k, sorts all of them: 0.3 ms and
2 ms a token at a vocabulary of 49k, 0.1 to 0.2 with top-k first. Vectorized, the same distribution is drawn
from in a fraction of that. The native chain has the rest: penalties, typical sampling, a large top-k.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rllm.engine.types import SamplingParams

Row = NDArray[np.float32]

MAX_TOP_K = 100
"""Above it the maxima of the blocks no longer leave few candidates."""
MOST_OF_TOP = 64
"""The most of a row's highest logits that can be had without the others."""
_BLOCK = 256
_LIKELY = 10.0  # logits this far below the highest are looked at only when the nucleus reaches that far
_COLDEST = 1e-4  # below this temperature nothing but the maximum can be drawn anyway


def can_draw(params: SamplingParams) -> bool:
    """Whether `Drawer` knows these parameters."""
    return not (
        params.is_greedy or params.top_k > MAX_TOP_K or params.typical_p < 1.0 or params.has_penalties
    )


def truncates(params: SamplingParams) -> bool:
    """Whether top-k, top-p or min-p leave anything out."""
    return params.top_k > 0 or params.top_p < 1.0 or params.min_p > 0.0


class Top(NamedTuple):
    """The highest logits of a row, the highest first and of equals the lowest token."""

    values: Row
    tokens: Sequence[int]
    total: float
    """Sum of exp(logit - highest) over the whole vocabulary."""


def needed_of_top(params: SamplingParams, num_banned: int) -> int:
    """How many of a row's highest logits a draw needs, at best; 0: all, or more than MOST_OF_TOP."""
    if params.is_greedy:
        count = 1
    elif params.top_k > 0:
        count = params.top_k
    elif num_banned == 0 and (params.top_p < 1.0 or params.min_p > 0.0):
        return MOST_OF_TOP
    else:
        return 0
    return count + num_banned if count + num_banned <= MOST_OF_TOP else 0


def draw_of_top(
    top: Top, params: SamplingParams, banned: Collection[int], uniform: Callable[[], float]
) -> int | None:
    """What `Drawer.draw` draws from the row (or its maximum, where greedy); None: ``top`` does not tell.

    ``banned`` tokens are those that the row would have at minus infinity. ``uniform`` is called only where a
    token is drawn.
    """
    if params.is_greedy:
        return next((token for token in top.tokens if token not in banned), None)
    values, tokens = top.values, np.asarray(top.tokens)
    if banned:
        allowed = np.array([token not in banned for token in top.tokens])
        values, tokens = values[allowed], tokens[allowed]
    if not len(tokens) or len(tokens) < params.top_k:
        return None
    if params.top_k > 0:
        kept = np.arange(_cut(np.exp(values[: params.top_k] - values[0]), params))
    elif (count := _reached(values, params, top.total)) is None:
        return None
    else:
        kept = np.arange(count)
        if params.top_p >= 1.0:
            kept = np.argsort(tokens[:count])  # in the order of the row
    scale = np.float32(1.0 / max(params.temperature, _COLDEST))
    drawn = np.exp((values[kept] - values[0]) * scale)
    return int(tokens[kept[_pick(drawn, uniform())]])


def _reached(values: Row, params: SamplingParams, total: float) -> int | None:
    """How many of the highest top-p and min-p leave of a whole row; None: more than are there."""
    count = len(values)
    if params.min_p > 0.0:
        reach = np.float32(-log(min(params.min_p, 1.0)))
        count = int(np.count_nonzero(values >= values[0] - reach))
    if params.top_p < 1.0:
        sums = np.cumsum(np.exp(values[:count] - values[0]), dtype=np.float64)
        count = min(count, int(np.searchsorted(sums, params.top_p * total)) + 1)
        if sums[-1] >= params.top_p * total:
            return count
    return count if count < len(values) else None


def _cut(weights: Row, params: SamplingParams) -> int:
    """How many of the highest, which are in order, top-p and min-p leave."""
    count = len(weights)
    if params.top_p < 1.0:
        total = np.cumsum(weights, dtype=np.float64)
        count = int(np.searchsorted(total, params.top_p * total[-1])) + 1
    if params.min_p > 0.0:
        count = min(count, max(1, int(np.count_nonzero(weights >= params.min_p))))
    return count


class Drawer:
    """Owns scratch space for one vocabulary. The filters are applied in llama.cpp's order: top-k, top-p and
    min-p to the unscaled distribution, then the temperature."""

    def __init__(self, vocab_size: int) -> None:
        padded = -(-vocab_size // _BLOCK) * _BLOCK
        self._blocks = np.zeros((padded // _BLOCK, _BLOCK), dtype=np.float32)
        self._weights = self._blocks.reshape(-1)[:vocab_size]

    def draw(self, row: Row, params: SamplingParams, uniform: float) -> int:
        """The token at ``uniform`` (in [0, 1)) of the cumulative distribution."""
        if not truncates(params):
            highest = row.max()
            np.subtract(row, highest, out=self._weights)
            np.multiply(self._weights, np.float32(1.0 / max(params.temperature, _COLDEST)), out=self._weights)
            np.exp(self._weights, out=self._weights)
            return self._pick_from_all(uniform)
        return self.draw_of(row, self.kept(row, params), params, uniform)

    def kept(self, row: Row, params: SamplingParams) -> NDArray[np.intp]:
        """The tokens that top-k, top-p and min-p leave, where they leave out any."""
        highest = row.max()
        return _kept_of_top(row, highest, params) if params.top_k > 0 else self._kept(row, highest, params)

    def draw_of(self, row: Row, kept: NDArray[np.intp], params: SamplingParams, uniform: float) -> int:
        """From ``kept`` alone."""
        scale = np.float32(1.0 / max(params.temperature, _COLDEST))
        weights = np.exp((row[kept] - row[kept].max()) * scale)
        return int(kept[_pick(weights, uniform)])

    def _kept(self, row: Row, highest: np.float32, params: SamplingParams) -> NDArray[np.intp]:
        """The tokens that top-p and min-p leave."""
        reach = _LIKELY if params.min_p <= 0.0 else -log(min(params.min_p, 1.0))
        likely = np.flatnonzero(row >= highest - np.float32(reach))
        if params.top_p >= 1.0:
            return likely
        np.subtract(row, highest, out=self._weights)
        np.exp(self._weights, out=self._weights)
        wanted = params.top_p * float(self._weights.sum())
        kept, reached = self._nucleus(likely, wanted)
        if not reached and params.min_p <= 0.0:
            kept, _ = self._nucleus(np.arange(len(row)), wanted)
        return kept

    def _nucleus(self, tokens: NDArray[np.intp], wanted: float) -> tuple[NDArray[np.intp], bool]:
        """The fewest of ``tokens`` that weigh ``wanted`` together, and whether they do."""
        weights = self._weights[tokens]
        order = np.argsort(-weights)
        total = np.cumsum(weights[order], dtype=np.float64)
        count = int(np.searchsorted(total, wanted)) + 1
        return tokens[order[:count]], count <= len(tokens)

    def _pick_from_all(self, uniform: float) -> int:
        """Find the block first: a running sum over the whole vocabulary would take longer than the rest."""
        totals = np.cumsum(self._blocks.sum(axis=1), dtype=np.float64)
        target = uniform * totals[-1]
        block = min(int(np.searchsorted(totals, target, side="right")), len(totals) - 1)
        before = totals[block - 1] if block else 0.0
        inner = np.cumsum(self._blocks[block], dtype=np.float64)
        at = int(np.searchsorted(inner, min(target - before, inner[-1] * (1 - 1e-12)), side="right"))
        return min(block * _BLOCK + at, len(self._weights) - 1)


def _kept_of_top(row: Row, highest: np.float32, params: SamplingParams) -> NDArray[np.intp]:
    """The tokens that top-k, then top-p and min-p leave."""
    top = _top(row, params.top_k)
    weights = np.exp(row[top] - highest)
    order = np.argsort(-weights)
    return top[order[: _cut(weights[order], params)]]


def _top(row: Row, k: int) -> NDArray[np.intp]:
    """The ``k`` highest, in no order. No less than the k-th highest maximum of a block can be among them."""
    maxima = row[: len(row) // _BLOCK * _BLOCK].reshape(-1, _BLOCK).max(axis=1)
    if k >= len(maxima):
        candidates = np.arange(len(row))
    else:
        candidates = np.flatnonzero(row >= np.partition(maxima, -k)[-k])
    if len(candidates) <= k:
        return candidates
    return candidates[np.argpartition(row[candidates], -k)[-k:]]


def _pick(weights: Row, uniform: float) -> int:
    total = np.cumsum(weights, dtype=np.float64)
    return min(int(np.searchsorted(total, uniform * total[-1], side="right")), len(total) - 1)
