"""What a plan does to sequences before it computes: cut, copy, store, bring back."""

from __future__ import annotations

from time import perf_counter

from rllm.backends.llama.context import Context
from rllm.backends.llama.decoder import Decoder
from rllm.backends.llama.state_store import StateStore
from rllm.engine.port import (
    Chunk,
    CopyPrefix,
    Effort,
    Forget,
    Load,
    Restore,
    Save,
    Status,
    StepResult,
    Truncate,
    Unload,
)

MemoryOp = Truncate | CopyPrefix | Restore | Save | Load | Unload | Forget


class Memory:
    """Owned by the thread that owns the context."""

    def __init__(self, context: Context, store: StateStore | None, stream_copy_s: float) -> None:
        """
        Args:
            stream_copy_s: what llama.cpp's own copy of a stream takes; the next decode does it.
        """
        self._context = context
        self._store = store
        self._stream_copy_s = stream_copy_s

    def apply(self, op: MemoryOp, copied: Effort) -> int | None:
        """The sequence that could not follow, and is empty now; None where all is well."""
        match op:
            case Truncate(seq, length):
                if not self._context.truncate(seq, length):
                    self._context.truncate(seq, 0)
                    return seq
            case CopyPrefix():
                return None if self._copy(op, copied) else op.dst
            case Restore():
                return None if self._required_store().restore(op) else op.seq
            case Save() | Load() | Unload() | Forget():
                self._required_store().apply(op)
        return None

    def _copy(self, op: CopyPrefix, copied: Effort) -> bool:
        context, began = self._context, perf_counter()
        if not context.copy_prefix(op.src, op.dst, op.length) or context.length(op.dst) != op.length:
            context.truncate(op.dst, 0)
            return False
        if context.copies_streams:
            copied.add(context.num_cells_per_sequence, self._stream_copy_s)
        elif not context.kv_unified:
            copied.add(context.length(op.src), perf_counter() - began)
        return True

    def _required_store(self) -> StateStore:
        if self._store is None:
            raise ValueError("there is no prefix store")
        return self._store


def probe_copy(decoder: Decoder) -> float:
    """Seconds that a copy of a stream adds to a decode, which does it where it cannot be watched."""
    context = decoder.context
    if not context.copies_streams or context.num_sequences < 2:
        return 0.0
    plain, copying = StepResult(Status.OK), StepResult(Status.OK)
    decoder.decode([Chunk(0, [0], 0, True)], plain)
    context.copy_prefix(0, 1, 1)
    decoder.decode([Chunk(0, [0], 1, True)], copying)
    context.clear()
    return max(0.0, copying.execute_s - plain.execute_s)
