"""Is what a request got among others what it gets alone? And where not: were two tokens as good as equal?

A difference is excused where the logits of the two most likely tokens, alone, are closer than the floor:
what the size and the cutting of batches alone do to the difference of two logits. The floor is measured on
texts of the same run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rllm.backends.llama.logits import LogitModel

CUTS = ((1, 1), (1, 0), (1, 48), (8, 1), (8, 7))
"""Ways to compute the same texts: (how many side by side, tokens of each per step; 0: as many as fit)."""
TEXTS = max(width for width, _ in CUTS)


@dataclass(frozen=True)
class Text:
    """A prompt and what followed it."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]

    @property
    def drawn_at(self) -> range:
        """Positions whose logits the tokens were drawn from."""
        return range(len(self.prompt) - 1, len(self.prompt) + len(self.tokens) - 1)


@dataclass(frozen=True)
class Floor:
    """``gap``: no two logits of one position moved against each other by more. ``top_gap``: the same of the
    two most likely tokens only."""

    gap: float
    top_gap: float
    positions: int


@dataclass(frozen=True)
class Difference:
    request_id: str
    at: int
    """The first token that differs."""
    gap: float
    """Logit of the most likely token less that of the second, there and alone."""


def open_model(path: Path, num_ctx: int, *, threads: int, ubatch_size: int) -> LogitModel:
    return LogitModel(
        path,
        num_ctx=num_ctx,
        num_sequences=TEXTS,
        batch_size=256,
        threads=threads,
        ubatch_size=ubatch_size,
    )


def measure_floor(model: LogitModel, texts: Sequence[Text]) -> Floor:
    """Of up to `TEXTS` texts."""
    texts = texts[:TEXTS]
    ways = [_logits(model, texts, width, step) for width, step in CUTS]
    gap = top_gap = 0.0
    for number in range(len(texts)):
        usual = ways[0][number]
        top = np.argsort(usual, axis=1)[:, -2:]
        for way in ways[1:]:
            moved = way[number] - usual
            gap = max(gap, float((moved.max(axis=1) - moved.min(axis=1)).max()))
            both = np.take_along_axis(moved, top, axis=1)
            top_gap = max(top_gap, float(np.abs(both[:, 0] - both[:, 1]).max()))
    return Floor(gap, top_gap, sum(len(text.tokens) for text in texts))


def _logits(model: LogitModel, texts: Sequence[Text], width: int, step: int) -> list[NDArray[np.float32]]:
    """The logits that every token of every text was drawn from."""
    found: list[NDArray[np.float32]] = []
    for begin in range(0, len(texts), width):
        group = texts[begin : begin + width]
        rows: list[list[NDArray[np.float32]]] = [[] for _ in group]
        sequences = [[*text.prompt, *text.tokens] for text in group]
        for part in model.rows(sequences, [text.drawn_at for text in group], tokens_per_step=step):
            rows[part.sequence].append(part.logits)
        found += [np.concatenate(own) for own in rows]
    return found


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """Where two texts differ first; None where the shorter is the beginning of the longer."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)


def difference(model: LogitModel, request_id: str, alone: Text, at: int) -> Difference:
    text = [*alone.prompt, *alone.tokens[:at]]
    row = model.logits([text], [[len(text) - 1]])[0][0]
    second, first = np.partition(row, -2)[-2:]
    return Difference(request_id, at, float(first - second))
