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

MOST_ADDED = 3
"""To complete a group."""
GAIN = 0.97
"""More rows are computed when that took less than this part of the time: less is noise."""
ENOUGH = 3
"""Steps after which a number of rows is known."""
_SMOOTHING = 0.2
_DOUBT = 0.999


class RowCosts:
    """What a decode step of so many rows takes, learned from the steps.

    The estimate of a number that is avoided gets a little better each time: see `rllm.engine.costs`.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._seen: dict[int, int] = {}

    def learn(self, rows: int, seconds: float) -> None:
        """The first step of its kind builds a graph, and a single one may have been disturbed."""
        seen = self._seen[rows] = self._seen.get(rows, 0) + 1
        if seen == 1:
            return
        before = self._seconds.get(rows, seconds)
        self._seconds[rows] = before + _SMOOTHING * (min(seconds, 2 * before) - before)

    def cheapest(self, rows: int) -> int:
        """How many to compute where ``rows`` are wanted."""
        if not self._is_known(rows):
            return rows
        own = self._seconds[rows]
        known = [count for count in range(rows + 1, rows + MOST_ADDED + 1) if self._is_known(count)]
        best = min(known, key=self._seconds.__getitem__, default=rows)
        if best == rows or self._seconds[best] >= own * GAIN:
            return rows
        self._seconds[rows] = own * _DOUBT
        return best

    def _is_known(self, rows: int) -> bool:
        return self._seen.get(rows, 0) > ENOUGH


def padding(
    chunks: Sequence[Chunk],
    length: Callable[[int], int],
    max_length: int,
    num_sequences: int,
    costs: RowCosts,
) -> list[Chunk]:
    """One chunk for each id in a gap between the decodes of a step, and for as many beside them as pay;
    none for what is not a step of decodes.

    Args:
        chunks: in the order of their ids.
        length: tokens that a sequence holds.
        max_length: tokens that a sequence can hold.
        num_sequences: ids are less than that.
    """
    if any(len(chunk.tokens) != 1 for chunk in chunks) or len(chunks) < 2:
        return []
    first, last = chunks[0].seq, chunks[-1].seq
    present = {chunk.seq for chunk in chunks}
    gaps = [seq for seq in range(first, last) if seq not in present]
    if len(gaps) > len(chunks):
        return []
    pads = [seq for seq in gaps if length(seq) < max_length]
    if len(pads) == len(gaps):
        rows = last - first + 1
        missing = costs.cheapest(rows) - rows
        pads += _beside(first, last, missing, lambda seq: length(seq) < max_length, num_sequences)
    return [Chunk(seq, (0,), length(seq), sample=True) for seq in pads]


def _beside(
    first: int, last: int, count: int, has_room: Callable[[int], bool], num_sequences: int
) -> Sequence[int]:
    """``count`` ids next to ``first`` to ``last``, above them if possible; none where there are too few."""
    above = list(takewhile(has_room, range(last + 1, min(last + 1 + count, num_sequences))))
    missing = count - len(above)
    below = list(takewhile(has_room, range(first - 1, max(first - 1 - missing, -1), -1)))
    return [*above, *below] if len(below) == missing else []
