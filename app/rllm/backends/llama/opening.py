"""Opening a context for a model, and saying what was opened."""

from __future__ import annotations

from rllm.backends.llama import lib
from rllm.backends.llama.context import Context, ContextOptions
from rllm.backends.llama.cuda_graphs import graphs_allowed
from rllm.backends.llama.model import Model
from rllm.backends.llama.settings import (
    context_options,
    ctx_per_slot,
    max_drafted,
    max_scored,
    store_bytes,
    uses_gpu,
)
from rllm.backends.options import LlamaOptions, fewer, with_slots
from rllm.engine.types import ComputePath, ModelInfo
from rllm.errors import StartError
from rllm.files.gguf_info import kv_bytes_per_token


def open_context(model: Model, options: LlamaOptions) -> tuple[Context, ContextOptions, LlamaOptions]:
    """The context, with fewer slots than asked for where memory does not hold more.

    Raises:
        StartError: not even one slot fits, or something else is wrong.
    """
    while True:
        wanted = context_options(options, model)
        lib.log.memory_was_short = False
        try:
            context = Context(model, wanted)
        except StartError as error:
            if not lib.log.memory_was_short:
                raise
            if options.slots == 1:
                raise StartError(f"{error}; not even one slot fits") from None
            slots = fewer(options.slots)
            text = f"out of memory with {options.slots} slots ({lib.log.last_error()}); trying {slots}"
            lib.log.sink("warning", text)
            options = with_slots(options, slots)
        else:
            lib.log.memory_was_short = False
            return context, wanted, options


def describe(
    model: Model, context: Context, wanted: ContextOptions, options: LlamaOptions, load_s: float
) -> ModelInfo:
    per_token = kv_bytes_per_token(model.header.metadata, wanted.cache_type_k, wanted.cache_type_v)
    memory_bytes, disk_bytes = store_bytes(options, model)
    return ModelInfo(
        path=str(model.path),
        description=model.description,
        architecture=model.header.architecture,
        num_params=model.num_params,
        size_bytes=model.size_bytes,
        vocab_size=model.vocab_size,
        num_ctx_train=model.num_ctx_train,
        slots=options.slots,
        num_sequences=context.num_sequences,
        ctx_per_slot=ctx_per_slot(options, model),
        kv_cells=context.num_cells,
        kv_unified=context.kv_unified,
        kv_bytes=per_token * context.num_cells,
        batch_size=context.batch_size,
        device=", ".join(lib.device_names(gpus=uses_gpu(options))),
        can_reuse_prefix=model.can_drop_tail,
        max_drafted=max_drafted(options, model),
        max_scored=max_scored(model, context.batch_size),
        flat_decode=uses_gpu(options),
        overlaps=uses_gpu(options),
        copy_cells=context.num_cells_per_sequence if context.copies_streams else 0,
        store_bytes=memory_bytes,
        store_disk_bytes=disk_bytes,
        load_s=load_s,
        buffers=dict(lib.log.buffers),
        compute=_compute_path(context, options),
    )


def _compute_path(context: Context, options: LlamaOptions) -> ComputePath:
    places = (name.removesuffix(" model") for name in lib.log.buffers if name.endswith(" model"))
    return ComputePath(
        buffer_types=tuple(sorted({place.removesuffix("_Mapped") for place in places})),
        repack=options.repack != "off",
        flash_attn=context.flash_attn,
        cuda_graphs=graphs_allowed() if uses_gpu(options) else None,
        threads=context.threads,
        threads_batch=context.threads_batch,
        ubatch_size=context.ubatch_size,
        features=lib.features(),
    )
