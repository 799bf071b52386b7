"""Running a text through a model in windows, and the rows of logits that come out.

Two ways: whole windows, as llama-perplexity does; and in steps of one token for a number of
windows side by side, as a server decodes. Kernels change with the size of the batch, so the two
differ a little even for the same file, and that little is the noise floor.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rllm_bench.quality.kldbase import Tokens
from rllm_bench.quality.model import Batch, LogitsModel, stretch
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


def opened(model: LogitsModel, window: Tokens) -> Tokens:
    """The window as the model sees it: its first token gives way to the begin token, if there is one."""
    if model.begin_token is None:
        return window
    seen = window.copy()
    seen[0] = model.begin_token
    return seen


def window_logits(model: LogitsModel, window: Tokens) -> Floats:
    """Rows for the scored half of one window (all but its last token), the window computed at once."""
    model.clear()
    seen = opened(model, window)
    wanted = np.zeros(len(seen), bool)
    wanted[len(seen) // 2 : -1] = True
    parts = []
    for start in range(0, len(seen), model.max_batch):
        piece = slice(start, start + model.max_batch)
        rows = model.logits(stretch(seen[piece], start, 0, wanted[piece]))
        parts.append(rows if len(seen) <= model.max_batch else rows.copy())
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def stepwise_logits(model: LogitsModel, windows: Tokens) -> Iterator[Floats]:
    """One row per window and step, over the scored half: ``len(windows)`` sequences decode together.

    The first half is computed window by window, so that runs of different widths start alike.
    """
    model.clear()
    seen = np.stack([opened(model, window) for window in windows])
    count, num_ctx = seen.shape
    first = num_ctx // 2
    nothing = np.zeros(first, bool)
    for seq in range(count):
        for start in range(0, first, model.max_batch):
            piece = slice(start, min(first, start + model.max_batch))
            model.logits(stretch(seen[seq, piece], start, seq, nothing[piece]))
    seqs, everything = np.arange(count, dtype=np.int32), np.ones(count, bool)
    for position in range(first, num_ctx - 1):
        column = np.ascontiguousarray(seen[:, position])
        yield model.logits(Batch(column, np.full(count, position, np.int32), seqs, everything))
