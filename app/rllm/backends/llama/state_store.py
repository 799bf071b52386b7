"""Stored prefixes of one context: their bytes in memory, and on disk where there is one.

Does what the engine's account of the store (`rllm.engine.store`) says and reports what became of it. The
bound on memory is the engine's affair; it is enforced here as well: only here the real sizes are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from rllm.backends.llama import lib
from rllm.backends.llama.context import Context
from rllm.backends.llama.disk import Disk, Loaded
from rllm.backends.llama.state_file import State
from rllm.engine.port import Forget, Load, Restore, Save, StoredPrefix, StoreReport, Unload

LOAD_TIMEOUT_S = 10.0
"""A prefix that is not there after so long is given up: requests wait for it."""


class StateStore:
    """Owned by the thread that owns the context."""

    def __init__(self, context: Context, memory_bytes: int, disk: Disk | None = None) -> None:
        self._context = context
        self._memory_bytes = memory_bytes
        self._used = 0
        self._disk = disk
        self._states: dict[int, State] = {}
        self._loading: dict[int, float] = {}
        """key -> when it was asked for."""
        self._report = StoreReport()

    @property
    def stored(self) -> Sequence[StoredPrefix]:
        """What was on disk at the start."""
        return () if self._disk is None else self._disk.stored

    @property
    def is_loading(self) -> bool:
        return bool(self._loading)

    def apply(self, op: Save | Load | Unload | Forget) -> None:
        match op:
            case Save():
                self._save(op)
            case Load(key):
                self._load(key)
            case Unload(key):
                self._drop(key)
            case Forget(key):
                self._forget(key)

    def restore(self, op: Restore) -> bool:
        """False: the sequence is empty and the prefix is gone."""
        state = self._states.get(op.key)
        began = perf_counter()
        if state is not None and self._context.load_state(op.seq, state, op.length):
            self._report.restore.add(state.nbytes, perf_counter() - began)
            self._report.num_restored += 1
            self._report.restored_tokens += op.length
            return True
        self._context.truncate(op.seq, 0)
        self._lose(op.key)
        return False

    def wait(self, seconds: float) -> None:
        """Until the disk has done something."""
        if self._disk is not None:
            self._disk.wait(seconds)

    def take_report(self) -> StoreReport:
        if self._disk is not None:
            self._hear_disk(self._disk)
        report, self._report = self._report, StoreReport()
        return report

    def close(self) -> None:
        self._states.clear()
        if self._disk is not None:
            self._disk.close()

    def _save(self, op: Save) -> None:
        began = perf_counter()
        room = self._memory_bytes - self._used
        state = (
            self._context.save_state(op.seq, room) if self._context.length(op.seq) == len(op.tokens) else None
        )
        if state is None:
            self._report.lost.add(op.key)
            return
        self._report.save.add(state.nbytes, perf_counter() - began)
        self._report.saved[op.key] = state.nbytes
        self._keep(op.key, state)
        if op.to_disk and self._disk is not None:
            self._disk.write(op.key, op.tokens, op.salt, state)

    def _load(self, key: int) -> None:
        if self._disk is None:
            self._lose(key)
            return
        self._loading[key] = perf_counter()
        self._disk.read(key)

    def _hear_disk(self, disk: Disk) -> None:
        for event in disk.take_done():
            if event.problem:
                lib.log.sink("warning", f"prefix store: {event.problem}")
            if isinstance(event, Loaded):
                self._loaded(event)
            elif event.problem:
                self._report.unwritten.add(event.key)
            else:
                self._report.written.add(event.key)
        for key, asked_at in list(self._loading.items()):
            if perf_counter() - asked_at > LOAD_TIMEOUT_S:
                del self._loading[key]
                self._lose(key)

    def _loaded(self, event: Loaded) -> None:
        if self._loading.pop(event.key, None) is None:  # given up, or forgotten meanwhile
            return
        if event.state is None or event.state.nbytes > self._memory_bytes - self._used:
            self._lose(event.key)
            return
        self._keep(event.key, event.state)
        self._report.loaded.add(event.key)
        self._report.load.add(event.state.nbytes, event.seconds)

    def _keep(self, key: int, state: State) -> None:
        self._states[key] = state
        self._used += state.nbytes

    def _drop(self, key: int) -> None:
        state = self._states.pop(key, None)
        self._used -= 0 if state is None else state.nbytes

    def _forget(self, key: int) -> None:
        self._drop(key)
        self._loading.pop(key, None)
        if self._disk is not None:
            self._disk.delete(key)

    def _lose(self, key: int) -> None:
        self._forget(key)
        self._report.lost.add(key)
