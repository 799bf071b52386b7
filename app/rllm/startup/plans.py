"""How each model is served: its options with what is known about them on this machine, and its workers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec

from rllm.backends.llama import lib
from rllm.backends.llama.fingerprint import build_id, fingerprint
from rllm.backends.llama.vocabulary import load_vocabulary
from rllm.backends.options import fallbacks
from rllm.engine.types import SamplingDefaults
from rllm.observe.gpu import Gpus
from rllm.serving.catalog import ModelPlan
from rllm.settings.settings import Settings
from rllm.startup.preflight import Checked, check
from rllm.startup.profiles import ProfileStore, apply, default_folder, describe_machine
from rllm.startup.sampling import sampling_defaults
from rllm.workers.frames import WorkerSpec


def profile_store(folder: Path | None, gpus: Gpus) -> ProfileStore:
    """Of this machine and this build of llama.cpp."""
    machine = describe_machine(build_id(), [f"{card.name}, driver {gpus.driver}" for card in gpus.read()])
    return ProfileStore(folder or default_folder(), machine, fingerprint)


def known_options(settings: Settings) -> dict[str, tuple[object, str]]:
    """Of the one model: options that nobody has chosen and its profile knows, with where they come from.

    Raises:
        StartError: its file cannot be read.
    """
    (model,) = settings.served()
    store = profile_store(settings.start.profile_dir, Gpus())
    known = apply(store.load(model.gguf), check(model).options)
    safe = known.fallback.options if known.fallback is not None else {}
    where = store.path(model.gguf)
    found: dict[str, tuple[object, str]] = {
        name: (value, f"tuned, {where}") for name, value in known.tuned.items()
    }
    found |= {name: (value, f"fall-back, {where}") for name, value in safe.items()}
    return found


def plan(
    checked: Checked,
    log_level: str,
    smaller: Mapping[str, str],
    fallback: Mapping[str, str],
    profiles: ProfileStore,
) -> ModelPlan:
    model = checked.model
    known = apply(profiles.load(model.gguf), checked.options)
    on_gpu = lib.is_cuda_build() and model.engine.gpu_layers != 0
    worker = WorkerSpec(
        name="",
        model_path=str(model.gguf),
        llama=known.options,
        fallbacks=fallbacks(known.options, on_gpu=on_gpu),
        fallback=known.fallback,
        tuned=known.tuned,
        scheduler=model.scheduler_options(),
        log_level="debug" if log_level == "debug" else "warning",
    )
    load = partial(load_vocabulary, model.gguf)
    workers = replicate(worker, model.id, model.engine.replicas, model.engine.devices)
    chosen = model.values()
    given = {name: chosen[name] for name in SamplingDefaults.__struct_fields__}
    return ModelPlan(
        model.id,
        model.aliases,
        load,
        workers,
        sampling=sampling_defaults(model.gguf, given),
        smaller=smaller.get(model.id),
        fallback=fallback.get(model.id),
    )


def replicate(worker: WorkerSpec, model: str, count: int, devices: str) -> tuple[WorkerSpec, ...]:
    """``count`` of one kind; each sees the next of ``devices`` where any are named."""
    names = [name.strip() for name in devices.split(",") if name.strip()]
    return tuple(
        msgspec.structs.replace(
            worker,
            name=f"{model}-{index}",
            env={"CUDA_VISIBLE_DEVICES": names[index % len(names)]} if names else {},
        )
        for index in range(count)
    )
