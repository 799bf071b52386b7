"""Log probabilities (natural log) from rows of raw logits: log p(i) = x_i - log sum exp(x)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rllm.engine.types import TokenLogprob, TopLogprob

Rows = NDArray[np.float32]


def token_logprob(row: Rows, token: int, num_top: int) -> TokenLogprob:
    """Of ``token``, and of the ``num_top`` most likely tokens."""
    log_sum = float(_log_sums(row[np.newaxis])[0])
    return TokenLogprob(token, float(row[token]) - log_sum, _top(row, log_sum, num_top))


def prompt_logprobs(rows: Rows, tokens: Sequence[int], num_top: int) -> list[TokenLogprob]:
    """Of what followed each row, with its rank: 1 + how many tokens were more likely.

    ``rows``: (len(tokens), vocabulary).
    """
    log_sums = _log_sums(rows)
    own = rows[np.arange(len(tokens)), tokens]
    ranks = 1 + np.count_nonzero(rows > own[:, np.newaxis], axis=1)
    return [
        TokenLogprob(token, float(value) - log_sum, _top(row, log_sum, num_top), rank)
        for row, token, value, log_sum, rank in zip(
            rows, tokens, own.tolist(), log_sums.tolist(), ranks.tolist(), strict=True
        )
    ]


def _log_sums(rows: Rows) -> NDArray[np.float64]:
    highest = rows.max(axis=1, keepdims=True)
    sums = np.exp(rows - highest).sum(axis=1, dtype=np.float64)
    logs: NDArray[np.float64] = np.log(sums) + highest[:, 0]
    return logs


def _top(row: Rows, log_sum: float, num_top: int) -> tuple[TopLogprob, ...]:
    """Equally likely ones in the order of their ids, as a greedy draw takes them."""
    num_top = min(num_top, len(row))
    if num_top <= 0:
        return ()
    least = row[np.argpartition(row, -num_top)[-num_top:]].min()
    candidates = np.flatnonzero(row >= least)
    best = candidates[np.argsort(-row[candidates], kind="stable")][:num_top].tolist()
    return tuple(TopLogprob(token, float(row[token]) - log_sum) for token in best)
