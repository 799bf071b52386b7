"""The first computation of a worker, by the kernels that requests will take.

llama.cpp multiplies many rows with other kernels than one (AMX tiles, repacked weights, a GPU's matrix
units), and a processor, a driver or a build can be wrong for any of them. Asking the processor what it can do
does not find that out: on a virtual machine that shows AMX and grants it, AMX instructions worked and ggml's
AMX kernels crashed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from rllm.backends.llama import lib
from rllm.backends.llama.context import Context
from rllm.backends.llama.decoder import OK, Decoder
from rllm.engine.port import Chunk, Status, StepResult
from rllm.errors import Miscomputed

MANY = 64
"""Rows of a prompt: more than any kernel's smallest tile, and 0.1 s for a model of 135M on two cores."""
FEW = 4
"""Rows of a short prompt."""
MOST_SEQUENCES = 8
_LEAST_S, _BYTES_PER_S = 180.0, 50e6
"""Time that it may take: weights that are not in memory yet are read from a slow disk meanwhile, and on two
cores with a load of 9, threads that wait for each other made 0.2 s last 40."""


def limit_s(model_bytes: int) -> float:
    """After so many seconds it will not end any more."""
    return _LEAST_S + model_bytes / _BYTES_PER_S


def batches(context: Context, slots: int) -> Iterator[list[Chunk]]:
    """Many rows; a few, beside one of each of several other sequences; a single one. Each follows the last.

    They fit the smallest cache: all together take at most MANY + FEW + MOST_SEQUENCES + 1 cells.
    """
    room = min(context.num_cells_per_sequence, context.num_cells) - FEW - MOST_SEQUENCES - 1
    many = max(1, min(MANY, context.batch_size, room))
    few = min(FEW, context.batch_size)
    others = range(1, min(slots, MOST_SEQUENCES, context.batch_size - few + 1))
    yield [_chunk(0, 0, many, context)]
    yield [_chunk(0, many, few, context), *(_chunk(seq, 0, 1, context) for seq in others)]
    yield [_chunk(0, many + few, 1, context)]


def _chunk(seq: int, start: int, count: int, context: Context) -> Chunk:
    tokens = [position % context.vocab_size for position in range(start + seq, start + seq + count)]
    return Chunk(seq, tokens, start, True)


def fault_of(rows: NDArray[np.float32]) -> str | None:
    """What shows that rows of logits, (outputs, vocabulary), were not computed from anything."""
    if not np.isfinite(rows).all():
        return "logits that are not finite"
    if (rows == rows[:, :1]).all(axis=1).any():
        return "logits that are all equal"
    return None


def run(decoder: Decoder, slots: int, name: str) -> None:
    """Compute the batches and leave nothing behind.

    Raises:
        Miscomputed: the model ``name`` cannot be computed here, or not rightly.
    """
    for chunks in batches(decoder.context, slots):
        fault: str | None
        if (code := decoder.decode(chunks, StepResult(Status.OK))) != OK:
            fault = f"llama_decode returned {code} ({lib.log.last_error()})"
        else:
            fault = fault_of(decoder.draws.outputs.rows(len(chunks))[: len(chunks)])
        if fault:
            rows = sum(len(chunk.tokens) for chunk in chunks)
            raise Miscomputed(f"{name}: its first batch of {rows} rows gave {fault}")
    decoder.context.clear()
