"""What an instance of each backend is started with: plain data, part of a worker's specification."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import msgspec

CPU_BATCH, GPU_BATCH = 256, 2048
"""Most tokens in one step, where the worker chooses."""
CPU_UBATCH, GPU_UBATCH = 512, 2048
"""Most tokens computed at once, where the worker chooses and the batch allows it."""
MAX_DRAFTED = 64
"""Most drafts of all sequences in one step: more rows than that take their time on any device."""
MIN_SCORED, MAX_SCORED, SCORED_BYTES = 16, 64, 16 * 2**20
"""Prompt tokens scored in one step: as many rows of logits as fit the bytes, within these bounds."""


class LlamaOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of one llama.cpp instance, checked and resolved; ``None`` or 0 lets the worker choose."""

    slots: int = 8
    ctx_per_slot: int = 4096
    threads: int = 0
    threads_batch: int = 0
    gpu_layers: int = -1
    """-1: all that fit the build."""
    kv: str = "auto"
    """auto, split or unified."""
    kv_cells: int = 0
    """Cells of a unified cache; fewer than ``slots * ctx_per_slot`` bets on shorter requests. 0: all."""
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    flash_attn: str = "auto"
    """auto, on or off."""
    batch_size: int = 0
    """Most tokens in one step; 0: what suits the device."""
    ubatch_size: int = 0
    """Most tokens computed at once; 0: what suits the device."""
    repack: str = "auto"
    """auto, on or off: llama.cpp's extra buffer types, which hold weights in another order for faster kernels
    (AMX, several rows at once)."""
    mmap: bool = True
    mlock: bool = False
    speculative_tokens: int = 0
    """Most drafts for one sequence in one step."""
    cuda_graphs: str = "auto"
    """auto, on or off."""
    prefix_store_mb: int = 0
    """Memory for prefixes that no longer fit the cache. 0: none."""
    prefix_store_dir: str = ""
    """Where they are written, too. Empty: nowhere."""
    prefix_store_disk_mb: int = 0


class Fallback(msgspec.Struct, frozen=True, kw_only=True):
    """Options that an instance goes on with because it did not compute without them."""

    options: dict[str, str]
    reason: str
    """What happened without them."""
    certain: bool = True
    """False: something took too long without them, as it also does on a machine that is busy."""


_SAFER = ("repack", "flash_attn", "cuda_graphs")
"""Options whose "off" leads around kernels that crash on some machines, the cheapest to go without first."""


def fallbacks(options: LlamaOptions, *, on_gpu: bool) -> tuple[dict[str, str], ...]:
    """What to try one after the other where a model does not compute: each of the options that nobody has
    chosen switched off by itself, then all of them."""
    flash_is_needed = options.cache_type_v not in {"f32", "f16", "bf16"}
    useless = {"flash_attn"} if flash_is_needed else set()
    if not on_gpu:
        useless.add("cuda_graphs")
    elif options.gpu_layers < 0:
        useless.add("repack")
    names = [name for name in _SAFER if name not in useless and getattr(options, name) == "auto"]
    singles = [{name: "off"} for name in names]
    return (*singles, dict.fromkeys(names, "off")) if len(names) > 1 else tuple(singles)


def fewer(slots: int) -> int:
    """What to try where memory was short for ``slots``."""
    return max(1, slots * 3 // 4)


def with_slots(options: LlamaOptions, slots: int) -> LlamaOptions:
    """Fewer than before: a shared pool of cells shrinks with them, down to one request at full length."""
    cells = options.kv_cells and max(options.kv_cells * slots // options.slots, options.ctx_per_slot)
    return msgspec.structs.replace(options, slots=slots, kv_cells=min(cells, options.kv_cells))


class FakeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The scriptable backend for tests of scheduling, HTTP and faults. See `rllm.backends.fake`."""

    slots: int = 4
    ctx_per_slot: int = 512
    batch_size: int = 64
    kv_unified: bool = True
    kv_cells: int = 0
    step_s: float = 0.0
    token_s: float = 0.0
    """Added to a step for each token computed."""
    babbles: bool = False
    """Every token is the same letter and prompts direct nothing: costs next to nothing."""
    max_scored: int = 0
    """Most prompt tokens scored in one step. 0: the batch."""
    most_slots: int = 0
    """With more, it does not start for want of memory. 0: any number; -1: none."""
    self_test: str = ""
    """What goes wrong when it is computed with for the first time: abort, hang, nan or constant."""
    computes_with: dict[str, str] = {}
    """Options that lead around that. Empty: none do."""
    repack: str = "auto"
    flash_attn: str = "auto"
    cuda_graphs: str = "auto"
    store_bytes: int = 0
    """Memory for prefixes that no longer fit the cache; a token takes one byte."""
    store_disk_bytes: int = 0


Within = Callable[[float], AbstractContextManager[object]]
"""Watches over the first computation: what is inside must have ended after so many seconds."""


def unlimited(_seconds: float) -> AbstractContextManager[object]:
    return nullcontext()
