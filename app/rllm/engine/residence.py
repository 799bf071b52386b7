"""Which sequence id holds what: running requests, idle prefixes that may be reused, and nothing.

The one place that pairs the account of cells, the prefix index and the operations llama.cpp has to be told,
so that the three cannot drift apart. Every id is in exactly one state:

    empty     no cells
    occupied  belongs to a request (which may be preempted and then has no cells)
    idle      holds the prefix of a finished request, least recently used first to go
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rllm.engine.cells import CellLedger, SplitLedger, UnifiedLedger
from rllm.engine.port import CloseSampler, CopyPrefix, Op, Truncate
from rllm.engine.prefix import NO_MATCH, Match, PrefixIndex
from rllm.engine.types import ModelInfo

MIN_COPY = 64
"""Shorter prefixes are computed again in split mode: there a copy moves the whole stream."""
MIN_WAIT = 8
"""A newcomer waits for somebody else's prefill when that saves it at least so many tokens."""
MAX_LOSS = 4
"""An idle prefix is continued in place when what is cut off is at most 1/MAX_LOSS of what is kept."""


@dataclass(frozen=True, slots=True)
class Placed:
    seq: int
    reused: int
    evicted: int


class Residence:
    def __init__(self, info: ModelInfo, *, prefix_cache: bool = True) -> None:
        self._unified = info.kv_unified
        self._can_trim = info.can_reuse_prefix
        self._prefix_cache = prefix_cache
        self._ledger: CellLedger = (
            UnifiedLedger(info.kv_cells)
            if info.kv_unified
            else SplitLedger(info.num_sequences, info.ctx_per_slot)
        )
        self._index = PrefixIndex()
        self._empty = set(range(info.num_sequences))
        self._occupied: set[int] = set()
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._ops: list[Op] = []

    @property
    def used(self) -> int:
        return self._ledger.used

    @property
    def free_cells(self) -> int:
        return self._ledger.total - self._ledger.used

    @property
    def num_occupied(self) -> int:
        return len(self._occupied)

    @property
    def has_ops(self) -> bool:
        return bool(self._ops)

    def idle_prefixes(self) -> Iterator[tuple[int, int]]:
        """(sequence id, length)"""
        return ((seq, self._ledger.length(seq)) for seq in self._idle)

    def room(self, seq: int) -> int:
        return self._ledger.room(seq)

    def length(self, seq: int) -> int:
        return self._ledger.length(seq)

    def add_op(self, op: Op) -> None:
        self._ops.append(op)

    def take_ops(self) -> tuple[Op, ...]:
        ops, self._ops = tuple(self._ops), []
        return ops

    # --- finding a place ------------------------------------------------------------------------

    def is_worth_waiting(self, tokens: Sequence[int], salt: str) -> bool:
        """Somebody is computing a prefix of ``tokens`` right now that is much longer than what is there."""
        if not self._prefix_cache or not self._can_trim:
            return False
        match = self._index.match(tokens[:-1], self._ledger.length, salt)
        return match.soon_length - match.length >= MIN_WAIT

    def place(self, tokens: Sequence[int], salt: str, seq: int, spoken_for: int) -> Placed | None:
        """A sequence id for ``tokens``, with what can be reused of them resident, and room for the rest.

        Args:
            seq: the id that the request holds already (it was preempted), or -1.
            spoken_for: cells that running requests are about to take.

        Returns:
            None when there is no id or no room; idle prefixes may have been evicted all the same.
        """
        match = self._match(tokens, salt)
        evicted = 0
        if self._unified:
            evicted, match = self._make_room(len(tokens) + spoken_for, match)
            if self.free_cells < len(tokens) - match.length + spoken_for:
                return None
        if seq < 0:
            if self._should_continue(match):
                self._continue(match, tokens)
                return Placed(match.seq, match.length, evicted)
            claimed = self._claim(match.seq)
            if claimed is None:
                return None
            seq, lost = claimed
            evicted += lost
        reused = 0
        if match.length:
            self._ledger.copy(match.seq, seq, match.length)
            self._ops.append(CopyPrefix(match.seq, seq, match.length))
            if match.seq in self._idle:
                self._idle.move_to_end(match.seq)
            reused = match.length
        self._index.insert(seq, tokens, salt)
        return Placed(seq, reused, evicted)

    def _match(self, tokens: Sequence[int], salt: str) -> Match:
        """At least one token is left over: logits come only from computing one."""
        if not self._prefix_cache:
            return NO_MATCH
        match = self._index.match(tokens[:-1], self._ledger.length, salt)
        if not self._can_trim and (
            match.seq not in self._idle or self._index.length(match.seq) != match.length
        ):
            return NO_MATCH
        if not self._unified and match.length < MIN_COPY and not self._should_continue(match):
            return NO_MATCH
        return match

    def _make_room(self, needed: int, match: Match) -> tuple[int, Match]:
        """Evict until ``needed`` tokens fit, the matched source last; without it there is no match."""
        evicted = self.evict(needed - match.length, keep=match.seq)
        if self.free_cells < needed - match.length and match.seq in self._idle:
            evicted += self.evict(needed)
            if match.seq not in self._idle:
                match = NO_MATCH
        return evicted, match

    def _should_continue(self, match: Match) -> bool:
        """Take over an idle sequence in place rather than copy it: little of it would be lost."""
        if match.seq not in self._idle:
            return False
        loss = self._ledger.length(match.seq) - match.length
        return loss * MAX_LOSS <= match.length or not (self._empty or len(self._idle) > 1)

    def _continue(self, match: Match, tokens: Sequence[int]) -> None:
        seq = match.seq
        del self._idle[seq]
        self._occupied.add(seq)
        if self._ledger.length(seq) > match.length:
            self._ledger.truncate(seq, match.length)
            self._index.truncate(seq, match.length)
            self._ops.append(Truncate(seq, match.length))
        self._index.extend(seq, tokens[match.length :])

    def _claim(self, source: int) -> tuple[int, int] | None:
        """An id without cells, and how many tokens were evicted for it."""
        seq = self._choose(source)
        if seq is None:
            return None
        evicted = self._drop(seq) if seq in self._idle else 0
        self._empty.discard(seq)
        self._occupied.add(seq)
        return seq, evicted

    def _choose(self, source: int) -> int | None:
        if self._unified or not self._occupied:
            if self._empty:
                return min(self._empty)
            return next((seq for seq in self._idle if seq != source), None)
        # split: consecutive ids compute in one ubatch, so stay next to those that run
        low = min(self._occupied)
        last = len(self._empty) + len(self._occupied) + len(self._idle)
        nearest: list[int] = [*range(low, last), *range(low - 1, -1, -1)]
        for seq in nearest:
            if seq in self._empty or (seq in self._idle and seq != source):
                return seq
        return None

    # --- while running --------------------------------------------------------------------------

    def grew(self, seq: int, count: int) -> None:
        """``seq`` holds ``count`` tokens more."""
        self._ledger.append(seq, count)

    def lost(self, seq: int) -> None:
        """The backend has emptied ``seq``; its request keeps it and computes everything again."""
        self._ledger.truncate(seq, 0)

    def vacate(self, seq: int) -> None:
        """Give the cells of a preempted request back; it keeps the id."""
        self._index.remove(seq)
        self._ledger.truncate(seq, 0)
        self._ops.append(Truncate(seq, 0))

    def release(self, seq: int, content: Sequence[int], *, keep: bool) -> None:
        """The request that held ``seq`` is over. ``content`` is what its cells hold; with ``keep`` it may
        be reused, else it is dropped."""
        self._occupied.remove(seq)
        self._ops.append(CloseSampler(seq))
        if keep and self._prefix_cache and content:
            known = self._index.length(seq)
            if known < len(content):
                self._index.extend(seq, content[known:])
            else:
                self._index.truncate(seq, len(content))
            self._idle[seq] = None
        else:
            self._empty_out(seq)

    # --- making room ----------------------------------------------------------------------------

    def evict(self, count: int, keep: int = -1) -> int:
        """Drop idle prefixes, least recently used first, until ``count`` cells are free or none is left.

        Returns:
            the number of tokens evicted.
        """
        evicted = 0
        for seq in list(self._idle):
            if self.free_cells >= count:
                break
            if seq != keep:
                evicted += self._drop(seq)
        return evicted

    def _drop(self, seq: int) -> int:
        length = self._ledger.length(seq)
        del self._idle[seq]
        self._empty_out(seq)
        return length

    def _empty_out(self, seq: int) -> None:
        self._index.remove(seq)
        if self._ledger.length(seq):
            self._ledger.truncate(seq, 0)
            self._ops.append(Truncate(seq, 0))
        self._empty.add(seq)

    # --- integrity ------------------------------------------------------------------------------

    def check(self) -> None:
        self._ledger.check()
        self._index.check()
        everyone = [*self._empty, *self._occupied, *self._idle]
        assert len(everyone) == len(set(everyone))
        for seq in self._empty:
            assert self._ledger.length(seq) == 0
            assert seq not in self._index
        for seq in self._idle:
            assert self._index.length(seq) == self._ledger.length(seq) > 0
        for seq in self._occupied:
            assert self._ledger.length(seq) <= max(self._index.length(seq), self._ledger.length(seq))
