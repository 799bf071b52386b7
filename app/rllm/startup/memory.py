"""What the machine has room for: slots on its cards, prefix stores in its memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from rllm.backends.llama import lib
from rllm.errors import StartError
from rllm.observe.gpu import Gpus
from rllm.startup.gpu_fit import Card, fit
from rllm.startup.preflight import Checked, available_bytes, check_memory, prefix_store_mb


def fit_memory(models: Sequence[Checked], gpus: Gpus, *, overcommit: bool) -> list[Checked]:
    """The models with the slots that memory has room for. Those that go to GPUs as a whole are held against
    theirs; of a part nothing can be said.

    Raises:
        StartError: it has no room, and that is not allowed.
    """
    cards = visible_cards(gpus) if lib.is_cuda_build() else []
    resident = [c for c in models if not cards or c.is_on_cpu for _ in range(c.model.engine.replicas)]
    if not overcommit:
        check_memory(resident, available_bytes(), "memory")
    whole = [checked for checked in models if cards and checked.model.engine.gpu_layers < 0]
    try:
        fitted = fit(whole, cards)
    except StartError:
        if not overcommit:
            raise
        return list(models)
    known = {checked.model.id: checked for checked in fitted}
    return [known.get(checked.model.id, checked) for checked in models]


def visible_cards(gpus: Gpus) -> list[Card]:
    """As far as CUDA_VISIBLE_DEVICES can be understood: it may also name cards by their UUID."""
    cards = [
        Card(card.index, card.name, card.memory_total_bytes, card.memory_total_bytes - card.memory_used_bytes)
        for card in gpus.read()
        if card.memory_total_bytes is not None and card.memory_used_bytes is not None
    ]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return cards
    names = [name.strip() for name in visible.split(",") if name.strip()]
    return [card for card in cards if str(card.index) in names] if all(map(str.isdigit, names)) else cards


def with_stores(models: Sequence[Checked], gpus: Gpus) -> list[Checked]:
    """Decide the size of prefix stores that was left open."""
    has_gpu = len(gpus) > 0 and lib.is_cuda_build()
    needed = sum(m.host_bytes * m.model.engine.replicas for m in models if not has_gpu or m.is_on_cpu)
    free = (available_bytes() - needed) // sum(m.model.engine.replicas for m in models)
    return [
        replace(checked, options=msgspec.structs.replace(checked.options, prefix_store_mb=size))
        for checked in models
        for size in [prefix_store_mb(checked.model, free, on_gpu=has_gpu and not checked.is_on_cpu)]
    ]


def unused_gpu(gpus: Gpus, device: str) -> str | None:
    """Why a model runs on ``device`` although the machine has a GPU; None where nothing is wrong."""
    if not len(gpus) or any(card.name in device for card in gpus.read()):
        return None
    if not lib.is_cuda_build():
        return "this build of llama-cpp-python has no CUDA: see RUNBOOK.md, 'GPU not used'"
    return "llama.cpp sees no CUDA device: check the driver and CUDA_VISIBLE_DEVICES"
