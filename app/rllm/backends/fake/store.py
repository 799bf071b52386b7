"""The fake prefix store: tokens by key. Its disk is another flag, and as fast as memory."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from rllm.backends.fake.cells import Cells, ContractBroken
from rllm.engine.port import Forget, Load, Restore, Save, StoreReport, Unload


@dataclass
class _Stored:
    tokens: list[int]
    in_memory: bool
    on_disk: bool


class FakeStore:
    """A token takes one byte."""

    def __init__(self, cells: Cells, memory_bytes: int) -> None:
        self._cells = cells
        self._memory_bytes = memory_bytes
        self._stored: dict[int, _Stored] = {}
        self._report = StoreReport()

    @property
    def memory_used(self) -> int:
        return sum(len(entry.tokens) for entry in self._stored.values() if entry.in_memory)

    def apply(self, op: Save | Load | Unload | Forget, *, fails: bool) -> None:
        if op.key in self._report.lost:
            return
        match op:
            case Save():
                self._save(op, fails)
            case Load(key) if fails:
                self._lose(key)
            case Load(key):
                self._get(key).in_memory = True
                self._report.loaded.add(key)
            case Unload(key):
                if not self._get(key).on_disk:
                    raise ContractBroken(f"prefix {key} would be nowhere")
                self._get(key).in_memory = False
            case Forget(key):
                self._stored.pop(key, None)

    def restore(self, op: Restore, *, fails: bool) -> bool:
        entry = self._stored.get(op.key)
        if entry is None or fails:
            self._lose(op.key)
            return False
        if not entry.in_memory or not 0 < op.length <= len(entry.tokens):
            raise ContractBroken(f"{op.length} tokens of prefix {op.key} restored, of {len(entry.tokens)}")
        began = perf_counter()
        self._cells.append(op.seq, entry.tokens, 0)
        self._cells.truncate(op.seq, op.length)
        self._report.restore.add(len(entry.tokens), perf_counter() - began)
        self._report.num_restored += 1
        self._report.restored_tokens += op.length
        return True

    def take_report(self) -> StoreReport:
        report, self._report = self._report, StoreReport()
        return report

    def _save(self, op: Save, fails: bool) -> None:
        began = perf_counter()
        tokens = self._cells.tokens(op.seq)
        if tokens != list(op.tokens):
            raise ContractBroken(f"sequence {op.seq} does not hold what it is stored as")
        if fails or self.memory_used + len(tokens) > self._memory_bytes:
            self._report.lost.add(op.key)
            return
        self._stored[op.key] = _Stored(tokens, in_memory=True, on_disk=op.to_disk)
        self._report.saved[op.key] = len(tokens)
        self._report.save.add(len(tokens), perf_counter() - began)
        if op.to_disk:
            self._report.written.add(op.key)

    def _get(self, key: int) -> _Stored:
        if key not in self._stored:
            raise ContractBroken(f"no prefix {key} is stored")
        return self._stored[key]

    def _lose(self, key: int) -> None:
        self._stored.pop(key, None)
        self._report.lost.add(key)
