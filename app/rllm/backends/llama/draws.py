"""All draws of one step, spread over threads where there are many.

One row of logits at a vocabulary of 49k takes 12 us for its maximum and 80 us for a draw at a temperature,
most of it inside numpy, which lets go of the interpreter lock. On a GPU every microsecond of it is one in
which the card has nothing to do. On the CPU the threads would take turns with llama.cpp's own, which wait
for their next work by spinning: there the engine's thread draws alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rllm.backends.llama.drawing import Drawer
from rllm.backends.llama.sampler import Sampler

MIN_ROWS = 4
"""Fewer rows for a thread are drawn before it has woken up."""


@dataclass(frozen=True, slots=True)
class Draw:
    """The next token of ``seq`` from ``row``, the logits after the batch's token ``index``."""

    seq: int
    sampler: Sampler
    row: NDArray[np.float32]
    index: int


class Draws:
    def __init__(self, vocab_size: int, num_threads: int) -> None:
        """``num_threads`` counts the caller's."""
        self._drawers = [Drawer(vocab_size) for _ in range(num_threads)]
        self._pool = ThreadPoolExecutor(num_threads - 1, "draw") if num_threads > 1 else None

    def draw(self, draws: Sequence[Draw], context: Any) -> dict[int, int]:
        """Tokens by sequence. Native chains stay on this thread, which owns the context."""
        if self._pool is None:
            return dict(self._some(draws, context, 0))
        native = [draw for draw in draws if draw.sampler.is_native]
        others = [draw for draw in draws if not draw.sampler.is_native] if native else draws
        share = max(MIN_ROWS, -(-len(others) // len(self._drawers)))
        own, *parts = [others[start : start + share] for start in range(0, max(1, len(others)), share)]
        away = [self._pool.submit(self._some, part, context, 1 + i) for i, part in enumerate(parts)]
        tokens = dict(self._some([*native, *own], context, 0))
        for future in away:
            tokens.update(future.result())
        return tokens

    def _some(self, draws: Sequence[Draw], context: Any, thread: int) -> list[tuple[int, int]]:
        return [(draw.seq, self._one(draw, context, thread)) for draw in draws]

    def _one(self, draw: Draw, context: Any, thread: int) -> int:
        return draw.sampler.draw(draw.row, context, draw.index, self._drawers[thread])

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
