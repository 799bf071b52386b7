"""The cell ledgers against a twin that names every cell."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rllm.engine.cells import CellLedger, SplitLedger, UnifiedLedger

TOTAL = 40
SEQS = st.integers(0, 3)


class LedgerMachine(RuleBasedStateMachine):
    shares = True

    def __init__(self) -> None:
        super().__init__()
        self.ledger: CellLedger = UnifiedLedger(TOTAL) if self.shares else SplitLedger(4, TOTAL // 4)
        self.cells: dict[int, list[int]] = {seq: [] for seq in range(4)}
        self.fresh = itertools.count()

    def _used(self) -> int:
        cells = [cell for held in self.cells.values() for cell in held]
        return len(set(cells))

    @rule(seq=SEQS, count=st.integers(0, 6))
    def append(self, seq: int, count: int) -> None:
        count = min(count, self.ledger.room(seq))
        self.ledger.append(seq, count)
        self.cells[seq].extend(next(self.fresh) for _ in range(count))

    @rule(src=SEQS, dst=SEQS, share=st.floats(0, 1))
    def copy(self, src: int, dst: int, share: float) -> None:
        length = round(share * len(self.cells[src]))
        if src == dst or self.cells[dst]:
            return
        self.ledger.copy(src, dst, length)
        held = self.cells[src][:length]
        self.cells[dst] = held if self.shares else [next(self.fresh) for _ in held]

    @rule(seq=SEQS, share=st.floats(0, 1))
    def truncate(self, seq: int, share: float) -> None:
        length = round(share * len(self.cells[seq]))
        self.ledger.truncate(seq, length)
        self.cells[seq] = self.cells[seq][:length]

    @invariant()
    def agrees(self) -> None:
        self.ledger.check()
        assert self.ledger.used == self._used()
        for seq, held in self.cells.items():
            assert self.ledger.length(seq) == len(held)


class SplitMachine(LedgerMachine):
    shares = False


TestUnifiedLedger = LedgerMachine.TestCase
TestSplitLedger = SplitMachine.TestCase
