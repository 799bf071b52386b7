"""Rows that make a decode step cheaper than it would be without them.

In a split cache only consecutive sequence ids compute together: where an id between others has nothing to
decode, llama.cpp computes the batch in two pieces and reads every weight twice, and it can reuse neither the
graph nor the CUDA graph of the step before. A throw-away token for the id in the gap costs next to nothing;
its cell is dropped again right after the step.

On a CPU the kernels compute rows in groups, and what is left over takes longer than a full group: with Q4_K_M
on two cores 7 rows took 20.1 ms and 8 rows 18.1, with Q8_0 12 to 15 rows longer than 16. Where the steps that
were measured say so, more throw-away tokens complete the group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile

from rllm.engine.port import Chunk
from rllm.engine.times import RowTimes
from rllm.engine.tuning import DEFAULT, Tuning


def padding(
    chunks: Sequence[Chunk],
    length: Callable[[int], int],
    max_length: int,
    num_sequences: int,
    times: RowTimes,
) -> list[Chunk]:
    """One chunk for each id in a gap between the decodes of a step, and for as many beside them as pay;
    none for what is not a step of decodes with equally many tokens each.

    Args:
        chunks: in the order of their ids.
        length: tokens that a sequence holds.
        max_length: tokens that a sequence can hold.
        num_sequences: ids are less than that.
    """
    width = len(chunks[0].tokens)
    if any(not chunk.is_decode or len(chunk.tokens) != width for chunk in chunks) or len(chunks) < 2:
        return []
    first, last = chunks[0].seq, chunks[-1].seq
    present = {chunk.seq for chunk in chunks}
    gaps = [seq for seq in range(first, last) if seq not in present]
    if len(gaps) > len(chunks):
        return []
    pads = [seq for seq in gaps if length(seq) + width <= max_length]
    if len(pads) == len(gaps) and width == 1:
        rows = last - first + 1
        missing = cheapest(rows, times) - rows
        pads += _beside(first, last, missing, lambda seq: length(seq) < max_length, num_sequences)
    return [Chunk(seq, (0,) * width, length(seq), sample=True) for seq in pads]


def cheapest(rows: int, times: RowTimes, tuning: Tuning = DEFAULT) -> int:
    """How many to compute where ``rows`` are wanted."""
    own = times.seconds(rows)
    if own is None:
        return rows
    others = {count: times.seconds(count) for count in range(rows + 1, rows + tuning.group_rows + 1)}
    known = {count: seconds for count, seconds in others.items() if seconds is not None}
    best = min(known, key=known.__getitem__, default=rows)
    if best == rows or known[best] >= own * tuning.group_gain:
        return rows
    times.doubt(rows)
    return best


def _beside(
    first: int, last: int, count: int, has_room: Callable[[int], bool], num_sequences: int
) -> Sequence[int]:
    """``count`` ids next to ``first`` to ``last``, above them if possible; none where there are too few."""
    above = list(takewhile(has_room, range(last + 1, min(last + 1 + count, num_sequences))))
    missing = count - len(above)
    below = list(takewhile(has_room, range(first - 1, max(first - 1 - missing, -1), -1)))
    return [*above, *below] if len(below) == missing else []
