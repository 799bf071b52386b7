"""The noise floor: how far the reference is from itself when only the batch size changes."""

from __future__ import annotations

import tempfile
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from rllm_bench.quality import rows
from rllm_bench.quality.kldbase import Tokens
from rllm_bench.quality.model import LogitsModel
from rllm_bench.quality.reference import Progress
from rllm_bench.quality.rows import SCORE, Scores
from rllm_bench.quality.windows import stepwise_logits

WIDTH = 32


def floor_windows(tokens: Tokens, num_ctx: int = 64, width: int = WIDTH) -> Tokens:
    """``width`` short windows, one from the start of each of the run's windows (or more from each)."""
    flat = tokens.reshape(-1)
    count = min(width, len(flat) // num_ctx)
    step = len(flat) // count // num_ctx * num_ctx
    return np.stack([flat[i * step : i * step + num_ctx] for i in range(count)])


def batching_floor(
    model: LogitsModel, windows: Tokens, scratch: Path, pool: Executor, progress: Progress
) -> Scores:
    """Scores of decoding ``windows`` side by side against decoding them one at a time.

    The distributions of the first pass wait in a temporary file under ``scratch``: at 49k tokens
    of vocabulary they are 100 MB.
    """
    count, num_ctx = windows.shape
    first, steps = num_ctx // 2, num_ctx - 1 - num_ctx // 2
    targets = windows[:, first + 1 :].astype(np.int64)
    out = np.empty((steps, count), SCORE)
    with tempfile.NamedTemporaryFile(dir=scratch, prefix="floor-") as file:
        shape = (steps, count, rows.row_width(model.vocab_size))
        alone = np.memmap(file.name, np.uint16, "w+", shape=shape)
        for index in range(count):
            for step, logits in enumerate(stepwise_logits(model, windows[index : index + 1])):
                alone[step, index] = rows.encode(logits, targets[index, step : step + 1]).codes[0]
            progress(index + 1, count + 1)
        for step, logits in enumerate(stepwise_logits(model, windows)):
            out[step] = rows.score(logits, alone[step], np.ascontiguousarray(targets[:, step]), pool)
        del alone
    progress(count + 1, count + 1)
    return out.reshape(-1)
