"""What a quality run needs of a loaded model: tokens in, rows of logits out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rllm_bench.quality.rows import Floats

Int32s = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Batch:
    """Tokens to compute in one call. Within a sequence, positions go on from where it ended."""

    tokens: Int32s
    positions: Int32s
    seqs: Int32s
    wanted: NDArray[np.bool_]


class LogitsModel(Protocol):
    """One sequence or many; nothing is sampled. Not thread-safe."""

    @property
    def num_vocab(self) -> int: ...

    @property
    def max_batch(self) -> int:
        """Tokens that one call may hold."""

    @property
    def num_seqs(self) -> int: ...

    @property
    def begin_token(self) -> int | None:
        """The token that every text begins with, if the vocabulary asks for one."""

    @property
    def context_token(self) -> int:
        """What stands before a text that is scored from its first token on."""

    def is_end(self, token: int) -> bool: ...

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Without begin or end tokens. ``special`` reads the markers of chat templates as tokens."""

    def text(self, tokens: Sequence[int]) -> str: ...

    def clear(self) -> None:
        """Forget all sequences."""

    def logits(self, batch: Batch) -> Floats:
        """One row for each wanted token, in order. The array is overwritten by the next call."""


def batch_of(rows: Iterable[tuple[int, int, int, bool]]) -> Batch:
    """From (token, position, sequence, wanted)."""
    tokens, positions, seqs, wanted = zip(*rows, strict=True)
    return Batch(
        np.array(tokens, np.int32),
        np.array(positions, np.int32),
        np.array(seqs, np.int32),
        np.array(wanted, bool),
    )


def stretch(tokens: Int32s, start: int, seq: int, wanted: NDArray[np.bool_]) -> Batch:
    """Consecutive tokens of one sequence from position ``start`` on."""
    count = len(tokens)
    positions = np.arange(start, start + count, dtype=np.int32)
    return Batch(tokens, positions, np.full(count, seq, np.int32), wanted)
