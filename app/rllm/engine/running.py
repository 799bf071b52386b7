"""The requests that hold a slot: how they get in, and who gives way when cells run out.

Idle prefixes go first (least recently used), then the last in line of those that run is preempted: it gives
its cells back, keeps its sampler, and is computed again later.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rllm.engine.kv_slots import KVSlots
from rllm.engine.line import Line
from rllm.engine.port import LiftBan, OpenSampler
from rllm.engine.sequence import Sequence, State, by_order
from rllm.engine.types import Started


@dataclass(slots=True)
class Counters:
    """What happened since the engine last looked; it sets them to zero."""

    cached_tokens: int = 0
    evicted_tokens: int = 0
    preemptions: int = 0
    accepted_tokens: int = 0
    """Drafts that were right."""
    kv_blocked: int = 0
    started: list[Started] = field(default_factory=list)
    """In order."""


class Running:
    def __init__(self, slots: int, kv: KVSlots, line: Line, end_tokens: frozenset[int]) -> None:
        self.kv = kv
        self.line = line
        self.by_seq: dict[int, Sequence] = {}
        self.counters = Counters()
        self._slots = slots
        self._end_tokens = end_tokens

    def __len__(self) -> int:
        return len(self.by_seq)

    @property
    def free_slots(self) -> int:
        return self._slots - len(self.by_seq)

    def of(self, state: State) -> list[Sequence]:
        return [s for s in self.by_seq.values() if s.state is state]

    def first(self) -> Sequence:
        return min(self.by_seq.values(), key=by_order)

    def last(self) -> Sequence:
        return max(self.by_seq.values(), key=by_order)

    def spoken_for(self) -> int:
        """Cells that those who run are about to take."""
        return sum(s.num_pending for s in self.by_seq.values())

    def enter(self, sequence: Sequence, spoken_for: int, now: float) -> bool:
        """Give a request a sequence id and what can be reused for it; False when its prompt has no room."""
        request = sequence.request
        placed = self.kv.place(sequence.tokens, request.salt, sequence.seq, spoken_for)
        self.counters.evicted_tokens += placed.evicted
        if placed.seq is None:
            return False
        if sequence.clock.admitted_at is None:
            bans = sequence.bans(self._end_tokens)
            op = OpenSampler(placed.seq, request.sampling, request.prompt, *bans, request.constraint)
            self.kv.ops.append(op)
            sequence.clock.admitted_at = now
            self.counters.started.append(Started(request.id, placed.seq, placed.reused))
            sequence.cached_tokens = placed.reused
            self.counters.cached_tokens += placed.reused
        sequence.seq = placed.seq
        sequence.computed = placed.reused
        sequence.move(State.PREFILLING)
        self.by_seq[placed.seq] = sequence
        return True

    def lift_ban(self, sequence: Sequence) -> None:
        """The next draw of ``sequence`` may end it, if it has enough tokens by now."""
        if not sequence.ban_lifted and sequence.num_output >= sequence.request.min_tokens:
            sequence.ban_lifted = True
            self.kv.ops.append(LiftBan(sequence.seq))

    def make_room(self, count: int) -> None:
        """Free cells for ``count`` tokens. The first in line never gives way, so somebody always gets on."""
        self.evict(count)
        while self.kv.free_cells < count and len(self.by_seq) > 1:
            last = self.last()
            if last.state is State.DECODING:
                count -= last.num_pending
            self.preempt(last)

    def evict(self, count: int) -> bool:
        evicted = self.kv.evict(count)
        self.counters.evicted_tokens += evicted
        return evicted > 0

    def preempt(self, sequence: Sequence) -> None:
        del self.by_seq[sequence.seq]
        self.kv.vacate(sequence.seq)
        sequence.computed = 0
        sequence.turn.uncached = len(sequence.tokens)
        sequence.move(State.WAITING)
        self.line.push(sequence)
        self.counters.preemptions += 1

    def restart(self, sequence: Sequence) -> None:
        """The memory could not keep the reused prefix: compute it after all."""
        if sequence.num_output == 0:
            self.counters.cached_tokens -= sequence.cached_tokens
            sequence.cached_tokens = 0
        sequence.computed = 0
        self.kv.lost(sequence.seq)
        sequence.move(State.PREFILLING)

    def leave(self, sequence: Sequence, content: list[int], *, keep: bool) -> None:
        """A request is over, wherever it is. ``content`` is what its cells hold; ``keep`` it for others."""
        if sequence.state is State.WAITING:
            self.line.remove(sequence.request.id)
            if sequence.seq >= 0:
                self.kv.release(sequence.seq, (), keep=False)
        else:
            del self.by_seq[sequence.seq]
            self.kv.release(sequence.seq, content, keep=keep)
        sequence.move(State.FINISHED)

    def check(self, num_preempted: int) -> None:
        """Recompute every account; raises AssertionError where one is wrong."""
        self.kv.check({seq: s.tokens for seq, s in self.by_seq.items()}, num_preempted)
        assert self.free_slots >= 0
        for seq, sequence in self.by_seq.items():
            assert sequence.seq == seq
            assert sequence.state in (State.PREFILLING, State.DECODING)
            assert sequence.computed == self.kv.length(seq) < len(sequence.tokens)
