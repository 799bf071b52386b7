"""From the options of an instance to the parameters of its context: every choice left open is made here."""

from __future__ import annotations

from pathlib import Path

from rllm.backends.llama import lib
from rllm.backends.llama.context import Context, ContextOptions
from rllm.backends.llama.disk import Disk
from rllm.backends.llama.fingerprint import fingerprint
from rllm.backends.llama.model import Model
from rllm.backends.llama.state_store import StateStore
from rllm.backends.options import (
    CPU_BATCH,
    CPU_UBATCH,
    GPU_BATCH,
    GPU_UBATCH,
    MAX_DRAFTED,
    MAX_SCORED,
    MIN_SCORED,
    SCORED_BYTES,
    LlamaOptions,
)
from rllm.errors import StartError
from rllm.files.gguf_info import CACHE_TYPES


def uses_gpu(options: LlamaOptions) -> bool:
    return options.gpu_layers != 0 and bool(lib.device_names(gpus=True))


def context_options(options: LlamaOptions, model: Model) -> ContextOptions:
    """
    Raises:
        StartError: a value llama.cpp does not know or the model cannot have.
    """
    _check(options)
    _warn_of_cut(options, model)
    batch_size = max(options.batch_size or _batch_size(options), options.slots)
    kv_unified = _is_unified(options)
    num_sequences = _num_sequences(options.slots, kv_unified and model.can_drop_tail)
    return ContextOptions(
        num_cells=options.kv_cells or options.slots * ctx_per_slot(options, model),
        num_sequences=num_sequences,
        batch_size=batch_size,
        ubatch_size=min(max(options.ubatch_size or _ubatch_size(options), options.slots), batch_size),
        # rows of logits; for 0, llama.cpp reserves some for the whole batch
        num_outputs=num_sequences + max(max_drafted(options, model), max_scored(model, batch_size)),
        threads=options.threads,
        threads_batch=options.threads_batch,
        kv_unified=kv_unified,
        cache_type_k=options.cache_type_k,
        cache_type_v=options.cache_type_v,
        flash_attn=options.flash_attn,
        copy_through_memory=not kv_unified and not uses_gpu(options) and model.can_save_state,
    )


def max_drafted(options: LlamaOptions, model: Model) -> int:
    """Most drafts in one step; none where wrong ones could not be dropped again."""
    return min(options.slots * options.speculative_tokens, MAX_DRAFTED) if model.can_drop_tail else 0


def max_scored(model: Model, batch_size: int) -> int:
    """Most prompt tokens whose logits one step gives: llama.cpp reserves memory for the rows, twice."""
    return min(MAX_SCORED, max(MIN_SCORED, SCORED_BYTES // (4 * model.vocab_size)), batch_size)


def store_bytes(options: LlamaOptions, model: Model) -> tuple[int, int]:
    """Bounds of the prefix store, in memory and on disk."""
    if not model.can_save_state:
        return 0, 0
    disk = options.prefix_store_disk_mb if options.prefix_store_dir else 0
    return options.prefix_store_mb * 2**20, disk * 2**20


def open_store(options: LlamaOptions, model: Model, context: Context) -> StateStore | None:
    """
    Raises:
        StartError: the folder for it cannot be used.
    """
    memory_bytes, disk_bytes = store_bytes(options, model)
    if not memory_bytes:
        return None
    disk = _open_disk(options, model, context) if disk_bytes else None
    return StateStore(context, memory_bytes, disk)


def _open_disk(options: LlamaOptions, model: Model, context: Context) -> Disk:
    """What a state depends on is its name; llama.cpp refuses some of these differences, but not all."""
    settings = {
        "cells": context.num_cells_per_sequence,
        "streams": 1 if context.kv_unified else context.num_sequences,
        "cache_type_k": options.cache_type_k,
        "cache_type_v": options.cache_type_v,
        "flash_attn": context.flash_attn,
        "gpu_layers": options.gpu_layers if uses_gpu(options) else 0,
    }
    folder = Path(options.prefix_store_dir).expanduser()
    return Disk(folder, model.path, fingerprint(model.path, settings), lib.log.sink)


def _batch_size(options: LlamaOptions) -> int:
    """On the CPU more than a micro-batch per step only delays cancelling; on a GPU prompts that are
    computed together amortise the change from decode to prefill and back."""
    return GPU_BATCH if uses_gpu(options) else CPU_BATCH


def _ubatch_size(options: LlamaOptions) -> int:
    """On a GPU whole prompts in one piece: an H100 computes 20 % more prompt tokens a second than in
    pieces of 512."""
    return GPU_UBATCH if uses_gpu(options) else CPU_UBATCH


def _num_sequences(slots: int, kv_unified: bool) -> int:
    """Ids beyond the slots hold idle prefixes: free in a unified cache, a stream each in a split one."""
    if not kv_unified:
        return slots
    limit = int(lib.api.llama_max_parallel_sequences())
    return max(slots, min(limit, slots * 4))


def ctx_per_slot(options: LlamaOptions, model: Model) -> int:
    """Never more than the model was trained for, nor than the cache holds."""
    wanted = options.ctx_per_slot or 4096
    return min(wanted, model.num_ctx_train or wanted, options.kv_cells or wanted)


def _warn_of_cut(options: LlamaOptions, model: Model) -> None:
    wanted, real = options.ctx_per_slot or 4096, ctx_per_slot(options, model)
    if real == model.num_ctx_train < wanted:
        lib.log.sink("warning", f"context of {wanted} cut to the {real} tokens {model.path} was trained for")


def _is_unified(options: LlamaOptions) -> bool:
    """A stream per sequence unless fewer cells than all slots could fill are asked for.

    In one pool every row of a batch attends over everything that is resident, idle prefixes included, and
    masks it away: the more is kept for reuse, the slower everybody decodes.
    """
    if options.kv == "auto":
        return options.kv_cells > 0
    return options.kv == "unified"


def _check(options: LlamaOptions) -> None:
    for name, value, allowed in (
        ("kv", options.kv, ("auto", "split", "unified")),
        ("cache_type_k", options.cache_type_k, CACHE_TYPES),
        ("cache_type_v", options.cache_type_v, CACHE_TYPES),
        ("flash_attn", options.flash_attn, ("auto", "on", "off")),
        ("repack", options.repack, ("auto", "on", "off")),
    ):
        if value not in allowed:
            raise StartError(f"{name} is {value!r}; it must be one of {', '.join(allowed)}")
    if options.kv_cells and not _is_unified(options):
        raise StartError("kv_cells is for a unified cache; in a split one every slot has its own")
    if options.slots < 1:
        raise StartError(f"slots is {options.slots}; it must be at least 1")
    if options.batch_size < 0:
        raise StartError(f"batch_size is {options.batch_size}; it must not be negative")
