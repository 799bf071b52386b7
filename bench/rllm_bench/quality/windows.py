"""Running a text through a model in windows, and the rows of logits that come out.

Two ways: whole windows, as llama-perplexity does; and in steps of one token for a number of
windows side by side, as a server decodes. Kernels change with the size of the batch, so the two
differ a little even for the same file, and that little is the noise floor.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rllm_bench.quality.kldbase import Tokens
from rllm_bench.quality.model import LogitsModel, begin_token
from rllm_bench.quality.rows import Floats


class TooShort(ValueError):
    """The text gives fewer tokens than the run needs."""


def cut(tokens: list[int], num_ctx: int, num_chunks: int | None) -> Tokens:
    """The first ``num_chunks`` windows of ``num_ctx`` tokens; all there are, if None."""
    available = len(tokens) // num_ctx
    if available < 2:
        raise TooShort(f"the text has {len(tokens)} tokens: two windows of {num_ctx} are the least")
    count = available if num_chunks is None else min(num_chunks, available)
    return np.array(tokens[: count * num_ctx], np.int32).reshape(count, num_ctx)


def window_logits(model: LogitsModel, window: Tokens) -> Floats:
    """Rows for the scored half of one window (all but its last token), the window computed at once."""
    parts = [rows.logits for rows in model.rows([_opened(model, window)], [_scored(len(window))])]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def stepwise_logits(model: LogitsModel, windows: Tokens) -> Iterator[Floats]:
    """One row per window and step, over the scored half: ``len(windows)`` sequences decode together."""
    count, num_ctx = windows.shape
    pending: list[Floats] = []
    for rows in model.rows(
        [_opened(model, window) for window in windows], [_scored(num_ctx)] * count, tokens_per_step=1
    ):
        if rows.sequence != len(pending):
            raise RuntimeError(f"rows of sequence {rows.sequence} came in place {len(pending)} of a step")
        pending.append(rows.logits)
        if len(pending) == count:
            yield np.concatenate(pending)
            pending = []


def _opened(model: LogitsModel, window: Tokens) -> list[int]:
    """The window as the model sees it: its first token gives way to the begin token, if there is one."""
    begin = begin_token(model.vocabulary)
    tokens: list[int] = window.tolist()
    return tokens if begin is None else [begin, *tokens[1:]]


def _scored(num_ctx: int) -> range:
    return range(num_ctx // 2, num_ctx - 1)
