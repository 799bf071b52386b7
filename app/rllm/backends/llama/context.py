"""A ``llama_context``: its parameters, its memory operations, one decode call."""

from __future__ import annotations

import ctypes
import os
from ctypes import c_void_p
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from rllm.backends.llama import lib
from rllm.backends.llama.batch import Batch
from rllm.backends.llama.model import Model
from rllm.backends.llama.state_file import State
from rllm.errors import StartError

api = lib.api

_CACHE_TYPES = {
    "f32": api.GGML_TYPE_F32,
    "f16": api.GGML_TYPE_F16,
    "bf16": 30,  # GGML_TYPE_BF16, which the package does not name
    "q8_0": api.GGML_TYPE_Q8_0,
    "q5_1": api.GGML_TYPE_Q5_1,
    "q5_0": api.GGML_TYPE_Q5_0,
    "q4_1": api.GGML_TYPE_Q4_1,
    "q4_0": api.GGML_TYPE_Q4_0,
    "iq4_nl": api.GGML_TYPE_IQ4_NL,
}
_FLASH_ATTN = {
    "auto": api.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": api.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": api.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


@dataclass(frozen=True, kw_only=True)
class ContextOptions:
    """What a context is created with; ``num_outputs`` 0 allows logits at every position."""

    num_cells: int
    num_sequences: int
    batch_size: int
    ubatch_size: int
    num_outputs: int = 0
    threads: int = 0
    threads_batch: int = 0
    kv_unified: bool = True
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    flash_attn: str = "auto"
    copy_through_memory: bool = False
    """Split cache: copy what the source holds by saving and restoring it. On the CPU this moves less than
    llama.cpp's own copy, which is of the whole stream; between a GPU's streams that one is faster."""
    swa_full: bool = True
    """Layers with a sliding window keep all cells. False saves memory, and prefixes can seldom be reused."""


class Context:
    """Owned by one thread. The real sizes may differ from those asked for and are read back."""

    def __init__(self, model: Model, options: ContextOptions) -> None:
        """
        Raises:
            StartError: llama.cpp refuses the options, or memory is short.
        """
        if options.num_sequences > api.llama_max_parallel_sequences():
            limit = api.llama_max_parallel_sequences()
            raise StartError(f"{options.num_sequences} slots are too many: llama.cpp's limit is {limit}")
        self._model = model
        lib.log.errors.clear()
        self.pointer = api.llama_init_from_model(model.pointer, _params(options))
        if not self.pointer:
            raise StartError(f"{model.path}: cannot create the context: {lib.log.last_error()}")
        self._memory = c_void_p(api.llama_get_memory(self.pointer))
        self.num_cells = int(api.llama_n_ctx(self.pointer))
        self.num_cells_per_sequence = int(api.llama_n_ctx_seq(self.pointer))
        self.num_sequences = int(api.llama_n_seq_max(self.pointer))
        self.batch_size = int(api.llama_n_batch(self.pointer))
        self.kv_unified = options.kv_unified
        self.copies_streams = not (options.kv_unified or options.copy_through_memory)
        """A copy between sequences moves a whole stream, when the next batch is decoded."""
        chosen = options.flash_attn == "on"
        self.flash_attn = lib.log.has_flash_attn if options.flash_attn == "auto" else chosen
        self._being_copied: set[int] = set()
        """Sources and targets of such copies that have not happened: their cells are not what they seem."""
        self._window = int(api.llama_model_n_swa(model.pointer))

    @property
    def vocab_size(self) -> int:
        return self._model.vocab_size

    @property
    def ubatch_size(self) -> int:
        return int(api.llama_n_ubatch(self.pointer))

    @property
    def threads(self) -> int:
        return int(api.llama_n_threads(self.pointer))

    @property
    def threads_batch(self) -> int:
        return int(api.llama_n_threads_batch(self.pointer))

    def decode(self, batch: Batch) -> int:
        """llama_decode's return code. More tokens than ``batch_size`` would abort the process."""
        if not 0 < len(batch) <= self.batch_size:
            raise ValueError(f"{len(batch)} tokens in a batch of {self.batch_size}")
        self._being_copied.clear()
        return int(api.llama_decode(self.pointer, batch.struct))

    def synchronize(self) -> None:
        api.llama_synchronize(self.pointer)

    def truncate(self, seq: int, length: int) -> bool:
        """Forget positions from ``length`` on. False: the memory cannot, and nothing changed."""
        self._check(seq)
        if length > 0 and not self._sees_enough(seq, length):
            return False
        # The general form is refused by recurrent memories, which only know "all of it".
        start = length if length > 0 else -1
        return bool(api.llama_memory_seq_rm(self._memory, seq, start, -1))

    def copy_prefix(self, src: int, dst: int, length: int) -> bool:
        """Give ``dst``, whatever it held, the first ``length`` positions of ``src``.

        False: the memory cannot; ``dst`` is then empty.
        """
        self._check(src)
        self._check(dst)
        if src == dst:
            raise ValueError(f"sequence {src} copied onto itself")
        self.truncate(dst, 0)
        if not self._model.can_drop_tail or not self._sees_enough(src, length):
            return False
        if self.kv_unified:
            api.llama_memory_seq_cp(self._memory, src, dst, 0, length)
            return True
        if not self.copies_streams:
            state = self.save_state(src)
            return state is not None and self.load_state(dst, state, length)
        # Between streams only the whole may be copied: a partial range aborts the process.
        api.llama_memory_seq_cp(self._memory, src, dst, -1, -1)
        self._being_copied |= {src, dst}
        if self.truncate(dst, length):
            return True
        self.truncate(dst, 0)
        return False

    def save_state(self, seq: int, max_bytes: int | None = None) -> State | None:
        """All that ``seq`` holds, or None where that is impossible or more than ``max_bytes``."""
        self._check(seq)
        if seq in self._being_copied:
            return None
        size = int(api.llama_state_seq_get_size(self.pointer, seq))
        if size == 0 or (max_bytes is not None and size > max_bytes):
            return None
        try:
            state = np.empty(size, dtype=np.uint8)
        except MemoryError:
            return None
        return state if api.llama_state_seq_get_data(self.pointer, _bytes(state), size, seq) == size else None

    def load_state(self, seq: int, state: State, length: int) -> bool:
        """Make ``seq``, whatever it held, hold the first ``length`` positions of a saved sequence.

        False: it is empty. The state must be one of this model and these options, and whole.
        """
        self._check(seq)
        self.truncate(seq, 0)
        if seq in self._being_copied:
            return False
        read = int(api.llama_state_seq_set_data(self.pointer, _bytes(state), state.nbytes, seq))
        if read == state.nbytes and self.truncate(seq, length) and self.length(seq) == length:
            return True
        self.truncate(seq, 0)
        return False

    def _sees_enough(self, seq: int, length: int) -> bool:
        """What follows position ``length`` finds all that its sliding window shows.

        llama.cpp forgets what has left the window without saying so: `seq_rm` succeeds all the same.
        """
        if not self._window:
            return True
        oldest = int(api.llama_memory_seq_pos_min(self._memory, seq))
        return oldest <= max(0, length - self._window)

    def length(self, seq: int) -> int:
        """Number of positions held by ``seq``, which start at 0 and have no gaps."""
        self._check(seq)
        return int(api.llama_memory_seq_pos_max(self._memory, seq)) + 1

    def clear(self) -> None:
        api.llama_memory_clear(self._memory, False)

    def num_graphs_reused(self) -> int:
        return int(api.llama_perf_context(self.pointer).n_reused)

    def close(self) -> None:
        if self.pointer:
            api.llama_free(self.pointer)
            self.pointer = None

    def _check(self, seq: int) -> None:
        """llama.cpp asserts this, and its assertions end the process."""
        if not 0 <= seq < self.num_sequences:
            raise ValueError(f"sequence {seq} is not in 0..{self.num_sequences - 1}")


def _bytes(state: State) -> object:
    return ctypes.cast(state.ctypes.data, ctypes.POINTER(ctypes.c_uint8))


def default_threads() -> int:
    """Physical cores this process may use: hyper-threads do not help, a container's quota binds."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or usable
    return max(1, min(usable, physical, _cgroup_cores() or usable))


def _cgroup_cores() -> int | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):
        return None


def _params(options: ContextOptions) -> object:
    params = api.llama_context_default_params()
    params.n_ctx = options.num_cells
    params.n_batch = options.batch_size
    params.n_ubatch = options.ubatch_size
    params.n_seq_max = options.num_sequences
    params.n_outputs_max = options.num_outputs
    params.n_threads = options.threads or default_threads()
    params.n_threads_batch = options.threads_batch or params.n_threads
    params.kv_unified = options.kv_unified
    params.type_k = _CACHE_TYPES[options.cache_type_k]
    params.type_v = _CACHE_TYPES[options.cache_type_v]
    params.flash_attn_type = _FLASH_ATTN[options.flash_attn]
    params.swa_full = options.swa_full
    params.no_perf = False  # counts the graphs that were reused
    return params
