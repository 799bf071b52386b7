"""Which prompts a step computes: those under way, short ones that may pass them, then requests that wait.

They go in line order, except that short ones may pass (`rllm.engine.line`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from rllm.engine.port import Chunk
from rllm.engine.running import Running
from rllm.engine.sequence import Sequence, State, by_order
from rllm.engine.tuning import DEFAULT, Tuning


@dataclass(slots=True)
class Batch:
    """A plan in the making: chunks by sequence id, and tokens spoken for."""

    chunks: dict[int, Chunk] = field(default_factory=dict)
    tokens: int = 0
    scored: int = 0
    """Prompt tokens whose log probabilities are wanted."""

    def add(self, chunk: Chunk) -> None:
        self.chunks[chunk.seq] = chunk
        self.tokens += len(chunk.tokens)
        self.scored += len(chunk.scored)


ChunkSize = Callable[[int, int, int], int]
"""Tokens of a prompt for a step, from how many are pending, how many the step has, and its limit."""


class Prefills:
    def __init__(self, running: Running, max_scored: int, size: ChunkSize, tuning: Tuning = DEFAULT) -> None:
        """``max_scored``: prompt tokens whose log probabilities one step can compute."""
        self._running = running
        self._line = running.line
        self._kv = running.kv
        self._max_scored = max_scored
        self._size = size
        self._scan = tuning.scan

    def plan(self, batch: Batch, limit: int, now: float) -> None:
        """Fill ``batch`` with prompts up to ``limit`` tokens in all."""
        prefilling = self._running.of(State.PREFILLING)
        self._let_pass(batch, prefilling, limit, now)
        for sequence in sorted(prefilling, key=by_order):
            if sequence.seq not in batch.chunks:
                self._add(batch, sequence, limit)
        while prefilling and not batch.chunks and len(self._running) > 1:  # prompts have filled the cache
            self._running.preempt(self._running.last())
            self._add(batch, self._running.first(), limit)
        self._admit(batch, limit, now)

    def _let_pass(self, batch: Batch, prefilling: list[Sequence], limit: int, now: float) -> None:
        """Plan the short prompts that may be computed before the first in line."""
        head = self._line.first()
        first = min(prefilling if head is None else [*prefilling, head], key=by_order, default=None)
        if first is None:
            return
        for sequence in sorted(prefilling, key=_by_pending):
            if sequence is not first and self._line.may_pass(sequence, first):
                first.turn.passed_tokens += self._add(batch, sequence, limit)
        stepped_over: list[Sequence] = []
        while head is not None and self._running.free_slots and batch.tokens < limit:
            short = self._line.shortest(first.request.priority)
            if short is None or len(stepped_over) == self._scan or not self._may_enter(short, head, first):
                break
            self._line.remove(short.request.id)
            if not self._enter_before(short, head, first, now):
                stepped_over.append(short)
                continue
            first.turn.passed_tokens += self._add(batch, short, limit)
            head = self._line.first()
        for sequence in stepped_over:
            self._line.push(sequence)

    def _may_enter(self, sequence: Sequence, head: Sequence, first: Sequence) -> bool:
        """A waiting request may pass the first, and the ``head`` of those who wait for a slot."""
        if sequence is first or not self._line.may_pass(sequence, first):
            return False
        if sequence is head or self._running.free_slots > 1:
            return True
        return self._line.is_short_beside(sequence, head) and not head.turn.gave_way

    def _enter_before(self, sequence: Sequence, head: Sequence, first: Sequence, now: float) -> bool:
        """Place a request that may pass, if that is still so and leaves room for the ``head``."""
        tokens, salt = sequence.tokens, sequence.request.salt
        if self._kv.is_worth_waiting(tokens, salt):
            return False
        sequence.turn.uncached = self._kv.num_uncached(tokens, salt)
        takes_slot = sequence is not head and self._running.free_slots == 1
        spoken_for = self._running.spoken_for() + (0 if sequence is head else head.num_uncached)
        if not self._line.may_pass(sequence, first) or not self._running.enter(sequence, spoken_for, now):
            return False
        head.turn.gave_way |= takes_slot
        return True

    def _admit(self, batch: Batch, limit: int, now: float) -> None:
        """Let requests in, in line order. One that shares a prefix which is being computed right now is
        stepped over until it is there; so is nobody else."""
        stepped_over: list[Sequence] = []
        spoken_for = self._running.spoken_for() if len(self._line) else 0
        while self._running.free_slots and len(stepped_over) < self._scan and batch.tokens < limit:
            sequence = self._line.pop()
            if sequence is None:
                break
            if self._kv.is_worth_waiting(sequence.tokens, sequence.request.salt):
                stepped_over.append(sequence)
                continue
            if not self._running.enter(sequence, spoken_for, now):
                self._running.counters.kv_blocked += 1
                stepped_over.append(sequence)
                break
            spoken_for += sequence.num_pending
            self._add(batch, sequence, limit)
        for sequence in stepped_over:
            self._line.push(sequence)

    def _add(self, batch: Batch, sequence: Sequence, limit: int) -> int:
        """Compute as much of what is pending as limit and cells allow; returns how many tokens."""
        count = self._size(sequence.num_pending, batch.tokens, limit)
        if sequence.unscored < len(sequence.request.prompt):  # each row of logits takes memory
            count = min(count, self._max_scored - batch.scored)
        if self._kv.room(sequence.seq, batch.tokens) < count:
            self._running.evict(count + batch.tokens)
        count = min(count, self._kv.room(sequence.seq, batch.tokens))
        if count <= 0:
            return 0
        end = sequence.computed + count
        if end == len(sequence.tokens):  # a preempted request may have reached its minimum before
            self._running.lift_ban(sequence)
        batch.add(
            Chunk(
                sequence.seq,
                sequence.tokens[sequence.computed : end],
                sequence.computed,
                sample=end == len(sequence.tokens),
                scored=sequence.scored_by(end),
            )
        )
        return count


def _by_pending(sequence: Sequence) -> int:
    return sequence.num_pending
