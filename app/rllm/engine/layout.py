"""The two layouts of a KV cache: what room there is, what a copy costs, and which sequence id comes next.

Unified: one pool of cells for all sequences. A copied prefix shares its cells with the source, so a copy is
free, and whoever takes cells takes them from everybody.
Split: a stream of cells per sequence. A copy moves cells, nobody takes room from others, and only consecutive
ids compute in one piece.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from rllm.engine.cells import CellLedger, SplitLedger, UnifiedLedger
from rllm.engine.moving import MovePolicy
from rllm.engine.tuning import DEFAULT, Tuning
from rllm.engine.types import ModelInfo


@dataclass(slots=True)
class SequenceIds:
    """Every sequence id, by what it is used for: each is in exactly one of these."""

    empty: set[int]
    """No cells."""
    occupied: set[int]
    """A request's, which has no cells while it is preempted."""
    idle: dict[int, None]
    """The prefix of a finished request, least recently used first."""

    def touch(self, seq: int) -> None:
        """An idle prefix was used."""
        if seq in self.idle:
            del self.idle[seq]
            self.idle[seq] = None

    def free(self, order: Iterable[int], source: int) -> int | None:
        """The first id in ``order`` that is not in use; the idle ``source`` of a copy is."""
        return next((s for s in order if s in self.empty or (s in self.idle and s != source)), None)

    def check(self) -> None:
        everyone = [*self.empty, *self.occupied, *self.idle]
        assert sorted(everyone) == list(range(len(everyone)))


class Layout(Protocol):
    @property
    def ledger(self) -> CellLedger: ...

    @property
    def is_crowded(self) -> bool:
        """Waiting requests will need cells that idle prefixes hold."""
        ...

    def room(self, seq: int, beside: int) -> int:
        """How many more tokens ``seq`` could append, beside so many of others."""
        ...

    def lacks(self, count: int) -> bool:
        """There are no cells for ``count`` tokens of a sequence that has none yet."""
        ...

    def moved(self, length: int) -> int:
        """Cells that a copy from a sequence of ``length`` tokens moves."""
        ...

    def copy_pays(self, reused: int, held: int) -> bool:
        """Copy ``reused`` of the ``held`` tokens of a sequence rather than compute them again."""
        ...

    def continuing_pays(self, kept: int, held: int) -> bool:
        """Cut an idle prefix of ``held`` tokens off after ``kept`` and go on there, rather than copy it."""
        ...

    def choose(self, ids: SequenceIds, source: int) -> int | None:
        """An id for a request; not ``source``, from which it will copy. None: there is none."""
        ...


class UnifiedLayout:
    def __init__(self, info: ModelInfo, tuning: Tuning = DEFAULT) -> None:
        self.ledger = UnifiedLedger(info.kv_cells)
        self._max_loss = tuning.max_loss

    @property
    def is_crowded(self) -> bool:
        return self.ledger.free * 2 < self.ledger.total

    def room(self, seq: int, beside: int) -> int:
        return self.ledger.free - beside

    def lacks(self, count: int) -> bool:
        return self.ledger.free < count

    def moved(self, length: int) -> int:
        return 0

    def copy_pays(self, reused: int, held: int) -> bool:
        return True

    def continuing_pays(self, kept: int, held: int) -> bool:
        return (held - kept) * self._max_loss <= kept  # a copy takes an id, of which there are not many

    def choose(self, ids: SequenceIds, source: int) -> int | None:
        return min(ids.empty) if ids.empty else ids.free(ids.idle, source)


class SplitLayout:
    def __init__(self, info: ModelInfo, moves: MovePolicy) -> None:
        self.ledger = SplitLedger(info.num_sequences, info.ctx_per_slot)
        self._num_sequences = info.num_sequences
        self._copy_cells = info.copy_cells
        self._moves = moves

    @property
    def is_crowded(self) -> bool:
        return False

    def room(self, seq: int, beside: int) -> int:
        return self.ledger.room(seq)

    def lacks(self, count: int) -> bool:
        return False

    def moved(self, length: int) -> int:
        return max(length, self._copy_cells)

    def copy_pays(self, reused: int, held: int) -> bool:
        return self._moves.copy_pays(reused, self.moved(held))

    def continuing_pays(self, kept: int, held: int) -> bool:
        return self._moves.continuing_pays(kept, held - kept, self.moved(held))

    def choose(self, ids: SequenceIds, source: int) -> int | None:
        """Next to those that run: consecutive ids compute in one ubatch."""
        if not ids.occupied:
            return min(ids.empty) if ids.empty else ids.free(ids.idle, source)
        low = min(ids.occupied)
        return ids.free(chain(range(low, self._num_sequences), range(low - 1, -1, -1)), source)
