"""One draw under a constraint: implements `rllm.engine.constraint.Row` on a row of logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rllm.backends.constraint.matcher import Bits, TokenMatcher, allowed_among
from rllm.backends.llama.drawing import Drawer, Row, truncates
from rllm.engine.types import SamplingParams


class ConstrainedRow:
    def __init__(
        self,
        row: Row,
        params: SamplingParams,
        drawer: Drawer,
        uniform: Callable[[], float],
        matcher: TokenMatcher,
    ) -> None:
        self._row = row
        self._params = params
        self._drawer = drawer
        self._uniform = uniform
        self._matcher = matcher
        self._bits: Bits | None = None

    def draw(self) -> int:
        return self._draw(self._row)

    def draw_allowed(self) -> int | None:
        if self._params.is_greedy or not truncates(self._params):
            return None  # one token is kept, and it was refused; or all are, and masking is the same
        kept = self._drawer.kept(self._row, self._params)
        kept = kept[allowed_among(self._mask(), kept)]
        if not len(kept) or self._row[kept].max() == -np.inf:
            return None
        return self._drawer.draw_of(self._row, kept, self._params, self._uniform())

    def draw_masked(self) -> int:
        masked = masked_row(self._row, self._mask())
        if masked.max() == -np.inf:  # banned or biased away: the constraint wins
            return first_allowed(self._mask())
        return self._draw(masked)

    def _draw(self, row: Row) -> int:
        if self._params.is_greedy:
            return int(row.argmax())
        return self._drawer.draw(row, self._params, self._uniform())

    def _mask(self) -> Bits:
        if self._bits is None:
            self._bits = self._matcher.mask()
        return self._bits


def masked_row(row: Row, bits: Bits) -> Row:
    """A copy, at minus infinity where the bit is not set."""
    allowed = np.unpackbits(bits.view(np.uint8), count=len(row), bitorder="little")
    return np.where(allowed.view(np.bool_), row, np.float32(-np.inf))


def first_allowed(bits: Bits) -> int:
    return int(np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little"))[0])
