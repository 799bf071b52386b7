"""Scoring rows of logits, in blocks that stay in the second-level cache.

The formulas are those of llama-perplexity, including its two quirks: a stored distribution ends
16 nats below its maximum, and tokens below -16 nats take no part in the divergence. Blocks are
spread over threads; numpy releases the GIL inside each of its loops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Codes = NDArray[np.uint16]
Ints = NDArray[np.int64]

BLOCK_ROWS = 4
HEADER_CODES = 4
_FLOOR = np.float32(-16.0)

SCORE = np.dtype(
    [("nll", "<f4"), ("nll_base", "<f4"), ("kld", "<f4"), ("p_diff", "<f4"), ("same_top", "<f4")]
)
"""What is kept of every scored token; all metrics are computed from these five."""

Scores = NDArray[np.void]


def row_width(num_vocab: int) -> int:
    """Codes in one stored row: four for scale and minimum, then the vocabulary, padded to even."""
    return 2 * ((num_vocab + 1) // 2) + HEADER_CODES


@dataclass(frozen=True, slots=True)
class Encoded:
    codes: Codes
    nll: Floats
    top: Ints


def _blocks(num_rows: int) -> Iterator[slice]:
    for start in range(0, num_rows, BLOCK_ROWS):
        yield slice(start, min(start + BLOCK_ROWS, num_rows))


def _spread(work: Callable[[slice], None], num_rows: int, pool: Executor | None) -> None:
    if pool is None:
        for rows in _blocks(num_rows):
            work(rows)
    else:
        for _ in pool.map(work, _blocks(num_rows)):
            pass


def _log_sum_exp(logits: Floats) -> tuple[Floats, Floats, Floats]:
    """Per row: the maximum, ln of the sum of exp(logit - maximum), and a scratch array."""
    top = logits.max(axis=1, keepdims=True)
    scratch = logits - top
    np.exp(scratch, out=scratch)
    return top, np.log(scratch.sum(axis=1, keepdims=True, dtype=np.float32)), scratch


def token_nll(logits: Floats, tokens: Ints, pool: Executor | None = None) -> tuple[Floats, Ints]:
    """Negative log-likelihood of ``tokens`` under their rows, and each row's most likely token."""
    nll = np.empty(len(logits), np.float32)
    top = np.empty(len(logits), np.int64)

    def work(rows: slice) -> None:
        block = logits[rows]
        high, log_sum, _ = _log_sum_exp(block)
        picked = np.take_along_axis(block, tokens[rows, None], axis=1)
        nll[rows] = (high + log_sum - picked)[:, 0]
        top[rows] = block.argmax(axis=1)

    _spread(work, len(logits), pool)
    return nll, top


def encode(logits: Floats, tokens: Ints, pool: Executor | None = None) -> Encoded:
    """Rows as ``--kl-divergence-base`` stores them: 16-bit steps from (max - 16) up to the maximum."""
    num_rows, num_vocab = logits.shape
    codes = np.zeros((num_rows, row_width(num_vocab)), np.uint16)
    header = codes[:, :HEADER_CODES].view(np.float32)
    nll = np.empty(num_rows, np.float32)
    top = np.empty(num_rows, np.int64)

    def work(rows: slice) -> None:
        block = logits[rows]
        high, log_sum, scratch = _log_sum_exp(block)
        low = np.maximum(block.min(axis=1, keepdims=True), high + _FLOOR)
        scale = (high - low) / np.float32(65535)
        inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
        np.subtract(block, low, out=scratch)
        np.multiply(scratch, inverse, out=scratch)
        np.rint(scratch, out=scratch)
        np.maximum(scratch, 0, out=scratch)
        codes[rows, HEADER_CODES : HEADER_CODES + num_vocab] = scratch
        header[rows, 0:1] = scale
        header[rows, 1:2] = low - high - log_sum
        nll[rows] = (high + log_sum - np.take_along_axis(block, tokens[rows, None], axis=1))[:, 0]
        top[rows] = block.argmax(axis=1)

    _spread(work, num_rows, pool)
    return Encoded(codes, nll, top)


def score(logits: Floats, base: Codes, tokens: Ints, pool: Executor | None = None) -> Scores:
    """Compare each row of ``logits`` with the stored row of the reference."""
    num_rows, num_vocab = logits.shape
    if base.shape != (num_rows, row_width(num_vocab)):
        raise ValueError(
            f"reference rows have shape {base.shape}, expected {(num_rows, row_width(num_vocab))}"
        )
    out = np.empty(num_rows, SCORE)
    header = np.ascontiguousarray(base[:, :HEADER_CODES]).view(np.float32)

    def work(rows: slice) -> None:
        block, codes = logits[rows], base[rows, HEADER_CODES : HEADER_CODES + num_vocab]
        scale, low = header[rows, 0:1], header[rows, 1:2]
        high, log_sum, p_base = _log_sum_exp(block)
        wanted = tokens[rows, None]
        nll = high + log_sum - np.take_along_axis(block, wanted, axis=1)
        nll_base = -(scale * np.take_along_axis(codes, wanted, axis=1) + low)
        ln_base = codes.astype(np.float32)
        np.multiply(ln_base, scale, out=ln_base)
        np.add(ln_base, low, out=ln_base)
        np.exp(ln_base, out=p_base)
        np.multiply(p_base, ln_base > _FLOOR, out=p_base)
        np.subtract(ln_base, block, out=ln_base)
        np.add(ln_base, high + log_sum, out=ln_base)
        out["kld"][rows] = np.vecdot(p_base, ln_base)
        out["nll"][rows] = nll[:, 0]
        out["nll_base"][rows] = nll_base[:, 0]
        out["p_diff"][rows] = (np.exp(-nll) - np.exp(-nll_base))[:, 0]
        out["same_top"][rows] = block.argmax(axis=1) == codes.argmax(axis=1)

    _spread(work, num_rows, pool)
    return out
