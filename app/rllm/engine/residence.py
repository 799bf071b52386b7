"""Which sequence id holds what: running requests, idle prefixes that may be reused, and nothing.

The one place that pairs the account of cells, the prefix index and the operations llama.cpp has to be told,
so that the three cannot drift apart. Every id is in exactly one state:

    empty     no cells
    occupied  belongs to a request (which may be preempted and then has no cells)
    idle      holds the prefix of a finished request, least recently used first to go

An idle prefix that goes may be stored outside the cache before, and come back later: see `rllm.engine.spill`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from rllm.engine.cells import CellLedger, SplitLedger, UnifiedLedger
from rllm.engine.costs import MAX_LOSS, Costs
from rllm.engine.port import CloseSampler, CopyPrefix, Op, Save, StepResult, StoredPrefix, Truncate
from rllm.engine.prefix import NO_MATCH, Match, PrefixIndex
from rllm.engine.spill import Spiller
from rllm.engine.store import Found, Place
from rllm.engine.types import ModelInfo

MIN_WAIT = 8
"""A newcomer waits for somebody else's prefill when that saves it at least so many tokens."""


@dataclass(frozen=True, slots=True)
class Placed:
    seq: int
    reused: int
    evicted: int


class Residence:
    def __init__(
        self,
        info: ModelInfo,
        *,
        prefix_cache: bool = True,
        costs: Costs | None = None,
        stored: Iterable[StoredPrefix] = (),
    ) -> None:
        self._unified = info.kv_unified
        self._can_trim = info.can_reuse_prefix
        self._copy_cells = info.copy_cells
        self._prefix_cache = prefix_cache
        self._costs = costs or Costs()
        self._ledger: CellLedger = (
            UnifiedLedger(info.kv_cells)
            if info.kv_unified
            else SplitLedger(info.num_sequences, info.ctx_per_slot)
        )
        self._index = PrefixIndex()
        self._empty = set(range(info.num_sequences))
        self._occupied: set[int] = set()
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._unsaved: OrderedDict[int, None] = OrderedDict()
        """Idle prefixes of which nobody has asked yet whether they are worth storing."""
        self._ops: list[Op] = []
        self._spiller = Spiller(info, self._costs, self._ops, stored if prefix_cache else ())
        self._spills = prefix_cache and info.store_bytes > 0 and info.can_reuse_prefix

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

    @property
    def store_bytes(self) -> tuple[int, int]:
        """What is stored outside the cache, in memory and on disk."""
        return self._spiller.store.memory_used, self._spiller.store.disk_used

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
        ops = tuple(self._ops)
        self._ops.clear()
        return ops

    # --- finding a place ------------------------------------------------------------------------

    def is_worth_waiting(self, tokens: Sequence[int], salt: str) -> bool:
        """Somebody is computing a prefix of ``tokens`` right now that is much longer than what is there."""
        if not self._prefix_cache or not self._can_trim:
            return False
        match = self._index.match(tokens[:-1], self._ledger.length, salt)
        if match.soon_length - match.length >= MIN_WAIT:
            return True
        found = self._find_stored(tokens, salt, match)
        return found is not None and self._spiller.is_coming(found)

    def num_uncached(self, tokens: Sequence[int], salt: str) -> int:
        """How many of ``tokens`` would have to be computed if they were placed now."""
        match = self._match(tokens, salt)
        found = self._find_stored(tokens, salt, match)
        return len(tokens) - (match.length if found is None else found.length)

    def num_uncached_soon(self, tokens: Sequence[int], salt: str) -> int:
        """The same once the prompts under way are complete, if nothing is evicted meanwhile."""
        if not self._prefix_cache or not self._can_trim:
            return len(tokens)
        match = self._index.match(tokens[:-1], self._ledger.length, salt)
        found = self._find_stored(tokens, salt, match)
        return len(tokens) - max(match.soon_length, 0 if found is None else found.length)

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
        found = self._find_stored(tokens, salt, match)
        if found is not None and found.place is Place.MEMORY:
            placed = self._place_stored(found, tokens, salt, seq, spoken_for)
            if placed.seq >= 0:
                return placed
            evicted, match = placed.evicted, self._match(tokens, salt)
        if self._unified:
            more, match = self._make_room(len(tokens) + spoken_for, match)
            evicted += more
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
        if self._unified or not match.length or self._should_continue(match):
            return match
        return match if self._costs.copy_pays(match.length, self._moved_cells(match)) else NO_MATCH

    def _moved_cells(self, match: Match) -> int:
        """Cells that a copy between streams moves: all that the source holds, or the whole stream."""
        return max(self._ledger.length(match.seq), self._copy_cells)

    def _find_stored(self, tokens: Sequence[int], salt: str, match: Match) -> Found | None:
        """A stored prefix that beats the resident ``match``."""
        if not self._spills:
            return None
        copies = not self._unified and match.length and not self._should_continue(match)
        spared = self._moved_cells(match) if copies else 0
        return self._spiller.find(tokens[:-1], salt, match.length, spared)

    def _place_stored(
        self, found: Found, tokens: Sequence[int], salt: str, seq: int, spoken_for: int
    ) -> Placed:
        """Like `place`, with what is reused coming from the store. Sequence -1 where there is no room."""
        evicted = 0
        self._spiller.pin(found.key)
        if self._unified:  # all that was stored comes back before what is too much is cut off
            needed = max(len(tokens), found.entry_length) + spoken_for
            evicted = self.evict(needed)
            if self.free_cells < needed:
                return Placed(-1, 0, evicted)
        if seq < 0:
            claimed = self._claim(-1)
            if claimed is None:
                return Placed(-1, 0, evicted)
            seq, lost = claimed
            evicted += lost
        self._ledger.append(seq, found.length)
        self._spiller.restore(found, seq)
        self._index.insert(seq, tokens, salt)
        return Placed(seq, found.length, evicted)

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
        if not (self._empty or len(self._idle) > 1):
            return True
        loss = self._ledger.length(match.seq) - match.length
        if self._unified:  # copying costs nothing but an id
            return loss * MAX_LOSS <= match.length
        return self._costs.continuing_pays(match.length, loss, self._moved_cells(match))

    def _continue(self, match: Match, tokens: Sequence[int]) -> None:
        seq = match.seq
        loss = self._ledger.length(seq) - match.length
        if loss and seq in self._unsaved:
            self._save(seq, loss=loss)
        del self._idle[seq]
        self._unsaved.pop(seq, None)
        self._occupied.add(seq)
        if loss:
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
        for seq in chain(range(low, last), range(low - 1, -1, -1)):
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
            if self._spills:
                self._unsaved[seq] = None
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
        if seq in self._unsaved:
            self._save(seq, loss=length)
        del self._idle[seq]
        self._empty_out(seq)
        return length

    def _empty_out(self, seq: int) -> None:
        self._index.remove(seq)
        if self._ledger.length(seq):
            self._ledger.truncate(seq, 0)
            self._ops.append(Truncate(seq, 0))
        self._empty.add(seq)

    # --- outside the cache ----------------------------------------------------------------------

    @property
    def wants_quiet(self) -> bool:
        """While nobody computes, something could be stored: `save_quietly`.

        Only when fewer than half of the places are left for newcomers; the prefix of whoever is alone on a
        server stays where it is.
        """
        if not self._unsaved:
            return False
        if self._unified and self.free_cells * 2 < self._ledger.total:
            return True
        clean = len(self._empty) + len(self._idle) - len(self._unsaved)
        return clean * 2 < len(self._empty) + len(self._idle) + len(self._occupied)

    def save_quietly(self) -> None:
        """Store the least recently used idle prefix that is worth it, in a step that computes nothing."""
        while self.wants_quiet and not any(isinstance(op, Save) for op in self._ops):
            seq = next(iter(self._unsaved))
            self._save(seq, loss=self._ledger.length(seq), quiet=True)

    def _save(self, seq: int, *, loss: int, quiet: bool = False) -> None:
        del self._unsaved[seq]
        tokens, salt = self._index.tokens(seq), self._index.salt(seq)
        self._spiller.save(seq, tokens, salt, loss=loss, quiet=quiet)

    def heard(self, result: StepResult, prefill_token_s: float | None) -> None:
        """What a step did beside computing; ``prefill_token_s`` is what a prompt token takes by now."""
        self._costs.learn(result, prefill_token_s)
        self._spiller.heard(result)

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
        assert self._unsaved.keys() <= self._idle.keys()
        self._spiller.store.check()
        for seq in self._occupied:
            assert self._ledger.length(seq) <= max(self._index.length(seq), self._ledger.length(seq))
