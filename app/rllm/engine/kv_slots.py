"""Which sequence id holds what: running requests, idle prefixes that may be reused, and nothing.

The one place that pairs the account of cells, the prefix index and the operations llama.cpp has to be told,
so that the three cannot drift apart. How cells are laid out is the layout's affair (`rllm.engine.layout`).
An idle prefix that goes may be stored outside the cache before, and come back later (`rllm.engine.offload`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rllm.engine.layout import Layout, SequenceIds
from rllm.engine.offload import PrefixOffload
from rllm.engine.port import CloseSampler, CopyPrefix, Op, Save, Truncate
from rllm.engine.prefix import NO_MATCH, Match, PrefixIndex
from rllm.engine.store import Found, Place
from rllm.engine.tuning import DEFAULT, Tuning
from rllm.engine.types import ModelInfo


@dataclass(frozen=True, slots=True)
class Placed:
    seq: int | None
    """None: there is no id or no room."""
    reused: int
    evicted: int
    """Tokens of idle prefixes, which may be gone although there is no room."""


class KVSlots:
    def __init__(
        self,
        info: ModelInfo,
        layout: Layout,
        offload: PrefixOffload,
        ops: list[Op],
        *,
        prefix_cache: bool = True,
        tuning: Tuning = DEFAULT,
    ) -> None:
        """
        Args:
            ops: where everything the backend must do is appended, by ``offload`` too.
        """
        self._layout = layout
        self._ledger = layout.ledger
        self.offload = offload
        self.ops = ops
        self._index = PrefixIndex()
        self._ids = SequenceIds(set(range(info.num_sequences)), set(), {})
        self._unsaved: dict[int, None] = {}
        """Idle prefixes of which nobody has asked yet whether they are worth storing."""
        self._prefix_cache = prefix_cache
        self._can_trim = info.can_reuse_prefix
        self._offloads = prefix_cache and info.store_bytes > 0 and info.can_reuse_prefix
        self._min_wait = tuning.min_wait

    @property
    def used(self) -> int:
        return self._ledger.used

    @property
    def free_cells(self) -> int:
        return self._ledger.free

    def idle_prefixes(self) -> Iterator[tuple[int, int]]:
        """(sequence id, length)"""
        return ((seq, self._ledger.length(seq)) for seq in self._ids.idle)

    def room(self, seq: int, beside: int = 0) -> int:
        """How many more tokens ``seq`` could append, beside so many that others append."""
        return self._layout.room(seq, beside)

    def length(self, seq: int) -> int:
        return self._ledger.length(seq)

    def take_ops(self) -> tuple[Op, ...]:
        ops = tuple(self.ops)
        self.ops.clear()
        return ops

    # --- finding a place ------------------------------------------------------------------------

    def is_worth_waiting(self, tokens: Sequence[int], salt: str) -> bool:
        """Somebody is computing a prefix of ``tokens`` right now that is much longer than what is there."""
        match = self._match_soon(tokens, salt)
        if match.soon_length - match.length >= self._min_wait:
            return True
        found = self._find_stored(tokens, salt, match)
        return found is not None and self.offload.is_coming(found)

    def num_uncached(self, tokens: Sequence[int], salt: str) -> int:
        """How many of ``tokens`` would have to be computed if they were placed now."""
        match = self._match(tokens, salt)
        found = self._find_stored(tokens, salt, match)
        return len(tokens) - (match.length if found is None else found.length)

    def num_uncached_soon(self, tokens: Sequence[int], salt: str) -> int:
        """The same once the prompts under way are complete, if nothing is evicted meanwhile."""
        match = self._match_soon(tokens, salt)
        found = self._find_stored(tokens, salt, match)
        return len(tokens) - max(match.soon_length, 0 if found is None else found.length)

    def place(self, tokens: Sequence[int], salt: str, seq: int, spoken_for: int) -> Placed:
        """A sequence id for ``tokens``, with what can be reused of them resident, and room for the rest.

        Args:
            seq: the id that the request holds already (it was preempted), or -1.
            spoken_for: cells that running requests are about to take.
        """
        match, evicted = self._match(tokens, salt), 0
        found = self._find_stored(tokens, salt, match)
        if found is not None and found.place is Place.MEMORY:
            placed = self._place_stored(found, tokens, salt, seq, spoken_for)
            if placed.seq is not None:
                return placed
            evicted, match = placed.evicted, self._match(tokens, salt)
        more, match = self._make_room(len(tokens) + spoken_for, match)
        evicted += more
        if self._layout.lacks(len(tokens) - match.length + spoken_for):
            return Placed(None, 0, evicted)
        if seq < 0:
            if self._should_continue(match):
                self._continue(match, tokens)
                return Placed(match.seq, match.length, evicted)
            claimed, lost = self._claim(match.seq)
            evicted += lost
            if claimed is None:
                return Placed(None, 0, evicted)
            seq = claimed
        if match.length:
            self._ledger.copy(match.seq, seq, match.length)
            self.ops.append(CopyPrefix(match.seq, seq, match.length))
            self._ids.touch(match.seq)
        self._index.insert(seq, tokens, salt)
        return Placed(seq, match.length, evicted)

    def _match_soon(self, tokens: Sequence[int], salt: str) -> Match:
        """What is there or will be; a memory that cannot forget may not stop where a prompt leaves it."""
        if not self._prefix_cache or not self._can_trim:
            return NO_MATCH
        return self._index.match(tokens[:-1], self._ledger.length, salt)

    def _match(self, tokens: Sequence[int], salt: str) -> Match:
        """At least one token is left over: logits come only from computing one."""
        if not self._prefix_cache:
            return NO_MATCH
        match = self._index.match(tokens[:-1], self._ledger.length, salt)
        if not self._can_trim and (
            match.seq not in self._ids.idle or self._index.length(match.seq) != match.length
        ):
            return NO_MATCH
        if not match.length or self._should_continue(match):
            return match
        pays = self._layout.copy_pays(match.length, self._ledger.length(match.seq))
        return match if pays else NO_MATCH

    def _find_stored(self, tokens: Sequence[int], salt: str, match: Match) -> Found | None:
        """A stored prefix that beats the resident ``match``."""
        if not self._offloads:
            return None
        copies = match.length and not self._should_continue(match)
        spared = self._layout.moved(self._ledger.length(match.seq)) if copies else 0
        return self.offload.find(tokens[:-1], salt, match.length, spared)

    def _place_stored(
        self, found: Found, tokens: Sequence[int], salt: str, seq: int, spoken_for: int
    ) -> Placed:
        """Like `place`, with what is reused coming from the store."""
        evicted = 0
        self.offload.pin(found.key)
        # all that was stored comes back before what is too much is cut off
        needed = max(len(tokens), found.entry_length) + spoken_for
        if self._layout.lacks(needed):
            evicted = self.evict(needed)
        if self._layout.lacks(needed):
            return Placed(None, 0, evicted)
        if seq < 0:
            claimed, lost = self._claim(-1)
            evicted += lost
            if claimed is None:
                return Placed(None, 0, evicted)
            seq = claimed
        self._ledger.append(seq, found.length)
        self.offload.restore(found, seq)
        self._index.insert(seq, tokens, salt)
        return Placed(seq, found.length, evicted)

    def _make_room(self, needed: int, match: Match) -> tuple[int, Match]:
        """Evict until ``needed`` tokens fit, the matched source last; without it there is no match."""
        evicted = 0
        if self._layout.lacks(needed - match.length):
            evicted = self.evict(needed - match.length, keep=match.seq)
        if self._layout.lacks(needed - match.length) and match.seq in self._ids.idle:
            evicted += self.evict(needed)
            if match.seq not in self._ids.idle:
                match = NO_MATCH
        return evicted, match

    def _should_continue(self, match: Match) -> bool:
        """Take over an idle sequence in place rather than copy it: little of it would be lost."""
        if match.seq not in self._ids.idle:
            return False
        if not self._ids.empty and len(self._ids.idle) == 1:  # there is no id to copy to
            return True
        return self._layout.continuing_pays(match.length, self._ledger.length(match.seq))

    def _continue(self, match: Match, tokens: Sequence[int]) -> None:
        seq = match.seq
        loss = self._ledger.length(seq) - match.length
        if loss and seq in self._unsaved:
            self._save(seq, loss=loss)
        del self._ids.idle[seq]
        self._unsaved.pop(seq, None)
        self._ids.occupied.add(seq)
        if loss:
            self._ledger.truncate(seq, match.length)
            self._index.truncate(seq, match.length)
            self.ops.append(Truncate(seq, match.length))
        self._index.extend(seq, tokens[match.length :])

    def _claim(self, source: int) -> tuple[int | None, int]:
        """An id without cells, but not ``source``, and how many tokens were evicted for it. None: no id."""
        seq = self._layout.choose(self._ids, source)
        if seq is None:
            return None, 0
        evicted = self._drop(seq) if seq in self._ids.idle else 0
        self._ids.empty.discard(seq)
        self._ids.occupied.add(seq)
        return seq, evicted

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
        self.ops.append(Truncate(seq, 0))

    def release(self, seq: int, content: Sequence[int], *, keep: bool) -> None:
        """The request that held ``seq`` is over. ``content`` is what its cells hold; with ``keep`` it may
        be reused, else it is dropped."""
        self._ids.occupied.remove(seq)
        self.ops.append(CloseSampler(seq))
        if keep and self._prefix_cache and content:
            known = self._index.length(seq)
            if known < len(content):
                self._index.extend(seq, content[known:])
            else:
                self._index.truncate(seq, len(content))
            self._ids.idle[seq] = None
            if self._offloads:
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
        for seq in list(self._ids.idle):
            if self.free_cells >= count:
                break
            if seq != keep:
                evicted += self._drop(seq)
        return evicted

    def _drop(self, seq: int) -> int:
        length = self._ledger.length(seq)
        if seq in self._unsaved:
            self._save(seq, loss=length)
        del self._ids.idle[seq]
        self._empty_out(seq)
        return length

    def _empty_out(self, seq: int) -> None:
        self._index.remove(seq)
        if self._ledger.length(seq):
            self._ledger.truncate(seq, 0)
            self.ops.append(Truncate(seq, 0))
        self._ids.empty.add(seq)

    # --- outside the cache ----------------------------------------------------------------------

    @property
    def wants_quiet(self) -> bool:
        """While nobody computes, something could be stored: `save_quietly`.

        Only when fewer than half of the places are left for others; the prefix of whoever is alone on a
        server stays where it is.
        """
        if not self._unsaved:
            return False
        unused = len(self._ids.empty) + len(self._ids.idle)
        clean = unused - len(self._unsaved)
        return self._layout.is_crowded or clean * 2 < unused + len(self._ids.occupied)

    def save_quietly(self) -> None:
        """Store the least recently used idle prefix that is worth it, in a step that computes nothing."""
        while self.wants_quiet and not any(isinstance(op, Save) for op in self.ops):
            seq = next(iter(self._unsaved))
            self._save(seq, loss=self._ledger.length(seq), quiet=True)

    def _save(self, seq: int, *, loss: int, quiet: bool = False) -> None:
        del self._unsaved[seq]
        tokens, salt = self._index.tokens(seq), self._index.salt(seq)
        self.offload.save(seq, tokens, salt, loss=loss, quiet=quiet)

    # --- integrity ------------------------------------------------------------------------------

    def check(self, running: Mapping[int, Sequence[int]], num_preempted: int) -> None:
        """Recompute every account; raises AssertionError where one is wrong.

        Args:
            running: the tokens of every request that holds cells, by its sequence id.
        """
        self._ledger.check()
        self._index.check()
        self._ids.check()
        for seq in self._ids.empty:
            assert self._ledger.length(seq) == 0
            assert seq not in self._index
        for seq in self._ids.idle:
            assert self._index.length(seq) == self._ledger.length(seq) > 0
        assert running.keys() <= self._ids.occupied
        assert len(self._ids.occupied) == len(running) + num_preempted
        for seq in self._ids.occupied:
            if seq in running:  # the index knows the prompt; what was drawn enters it at the end
                assert self._ledger.length(seq) < len(running[seq])
                assert self._index.tokens(seq) == list(running[seq][: self._index.length(seq)])
            else:  # preempted
                assert self._ledger.length(seq) == 0
                assert seq not in self._index
        assert self._unsaved.keys() <= self._ids.idle.keys()
        self.offload.store.check()
