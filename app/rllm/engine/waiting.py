"""The line before the engine: first come, first served within a priority, and priorities that age.

A request of priority p that arrived at t stands at p * AGING_S + t: each level of priority is worth
`AGING_S` seconds of waiting, so nobody waits for ever behind better priorities. The place never changes
while time passes, which is why a heap will do. Preempted requests keep their place and so return first.
"""

from __future__ import annotations

import heapq

from rllm.engine.sequence import Sequence

AGING_S = 30.0


class WaitingLine:
    def __init__(self) -> None:
        self._heap: list[tuple[tuple[float, int], Sequence]] = []
        self._gone: set[str] = set()
        self._present: set[str] = set()
        self._counter = 0

    def __len__(self) -> int:
        return len(self._present)

    def place(self, priority: int, arrived_at: float) -> tuple[float, int]:
        """The place in line of a newcomer; ties go to who was seen first."""
        self._counter += 1
        return (priority * AGING_S + arrived_at, self._counter)

    def push(self, sequence: Sequence) -> None:
        heapq.heappush(self._heap, (sequence.order, sequence))
        self._present.add(sequence.request.id)

    def remove(self, request_id: str) -> None:
        """Somebody leaves the line from within."""
        self._present.remove(request_id)
        self._gone.add(request_id)

    def pop(self) -> Sequence | None:
        while self._heap:
            _, sequence = heapq.heappop(self._heap)
            if sequence.request.id in self._gone:
                self._gone.remove(sequence.request.id)
                continue
            self._present.remove(sequence.request.id)
            return sequence
        return None
