"""Rows that keep a decode step in one piece.

In a split cache only consecutive sequence ids compute together: where an id between others has nothing to
decode, llama.cpp computes the batch in two pieces and reads every weight twice, and it can reuse neither the
graph nor the CUDA graph of the step before. A throw-away token for the id in the gap costs next to nothing;
its cell is dropped again right after the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rllm.engine.port import Chunk


def padding(chunks: Sequence[Chunk], length: Callable[[int], int], max_length: int) -> list[Chunk]:
    """One chunk for each id in a gap between the decodes of a step; none where padding would not pay.

    Args:
        chunks: in the order of their ids.
        length: tokens that a sequence holds.
        max_length: tokens that a sequence can hold.
    """
    if any(len(chunk.tokens) != 1 for chunk in chunks) or len(chunks) < 2:
        return []
    present = {chunk.seq for chunk in chunks}
    gaps = [seq for seq in range(chunks[0].seq, chunks[-1].seq) if seq not in present]
    if len(gaps) > len(chunks):
        return []
    return [Chunk(seq, (0,), length(seq), sample=True) for seq in gaps if length(seq) < max_length]
