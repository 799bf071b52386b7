"""The line before the engine: who is next, and who may go before them.

First come, first served within a priority, and priorities that age: a request of priority p that arrived at t
stands at p * `Tuning.aging_s` + t, so nobody waits for ever behind better priorities. The place never changes
while time passes, which is why a heap will do. Preempted requests keep their place and so return first.

Short prompts may pass long ones. "First" is who is first in line among those whose prompt is not complete,
with a slot or without. While somebody is first,

- prompts may pass that have at most 1/`Tuning.pass_ratio` of what the first still has to compute,
- of no worse priority,
- together at most `Tuning.pass_share` of the first one's own prompt,
- and one of them may take the slot that the first is waiting for; all others only slots beside it.

Whoever passes is charged to the first alone. So a request waits for at most 1 + `pass_share` times the prompt
tokens that it would wait for if nobody ever passed, and for at most twice as many slots: whoever is before it
in line lets no more pass than that, and then nobody passes any more.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import TypeAlias

from rllm.engine.sequence import Sequence
from rllm.engine.tuning import DEFAULT, Tuning

_Key: TypeAlias = tuple[float, int]


class Line:
    """Requests without cells. A second heap per priority knows who has the least to compute."""

    def __init__(self, tuning: Tuning = DEFAULT) -> None:
        self._tuning = tuning
        self._tickets: dict[str, int] = {}
        """Who is in line: a number of its own for every time somebody joined."""
        self._by_place = _Heap(self._tickets)
        self._by_length: dict[int, _Heap] = {}
        self._counter = 0

    def __len__(self) -> int:
        return len(self._tickets)

    def place(self, priority: int, arrived_at: float) -> _Key:
        """The place in line of a new request; ties go to who was seen first."""
        self._counter += 1
        return (priority * self._tuning.aging_s + arrived_at, self._counter)

    def push(self, sequence: Sequence) -> None:
        self._counter += 1
        ticket = self._tickets[sequence.request.id] = self._counter
        self._by_place.push(sequence.order, ticket, sequence)
        priority = sequence.request.priority
        lengths = self._by_length.get(priority)
        if lengths is None:
            lengths = self._by_length[priority] = _Heap(self._tickets)
        lengths.push((sequence.num_uncached, ticket), ticket, sequence)

    def remove(self, request_id: str) -> None:
        """Somebody leaves the line from within."""
        del self._tickets[request_id]

    def first(self) -> Sequence | None:
        return self._by_place.first()

    def pop(self) -> Sequence | None:
        sequence = self._by_place.first()
        if sequence is not None:
            del self._tickets[sequence.request.id]
        return sequence

    def shortest(self, worst_priority: int) -> Sequence | None:
        """Who has the least to compute, of ``worst_priority`` or better; ties go to who joined first."""
        best: Sequence | None = None
        for priority, lengths in list(self._by_length.items()):
            sequence = lengths.first()
            if sequence is None:
                del self._by_length[priority]
            elif priority <= worst_priority and (best is None or sequence.num_uncached < best.num_uncached):
                best = sequence
        return best

    def is_short_beside(self, other: Sequence, first: Sequence) -> bool:
        if other.request.priority > first.request.priority:
            return False
        return other.num_uncached * self._tuning.pass_ratio <= first.num_uncached

    def may_pass(self, other: Sequence, first: Sequence) -> bool:
        """``other`` is short beside the first, and the first has not let too much pass yet."""
        allowance = self._tuning.pass_share * len(first.request.prompt) - first.turn.passed_tokens
        return self.is_short_beside(other, first) and other.num_uncached <= allowance


class _Heap:
    """Whoever left the line stays here until seen at the top, or until those are the majority."""

    def __init__(self, tickets: Mapping[str, int]) -> None:
        self._tickets = tickets
        self._entries: list[tuple[_Key, int, Sequence]] = []

    def push(self, key: _Key, ticket: int, sequence: Sequence) -> None:
        if len(self._entries) > 2 * len(self._tickets) + 64:
            self._entries = [entry for entry in self._entries if self._is_there(entry)]
            heapq.heapify(self._entries)
        heapq.heappush(self._entries, (key, ticket, sequence))

    def first(self) -> Sequence | None:
        while self._entries:
            if self._is_there(self._entries[0]):
                return self._entries[0][2]
            heapq.heappop(self._entries)
        return None

    def _is_there(self, entry: tuple[_Key, int, Sequence]) -> bool:
        return self._tickets.get(entry[2].request.id) == entry[1]
