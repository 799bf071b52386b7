"""Wires the program: settings in, a served pool out. Nothing else knows all the parts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import psutil
import uvloop
from structlog.typing import FilteringBoundLogger

from rllm import background
from rllm.api.app import create_app
from rllm.api.http.connections import free_descriptors, room_for
from rllm.api.settings import ApiKey, ApiSettings
from rllm.backends.llama import lib
from rllm.backends.llama.context import default_threads
from rllm.backends.llama.fingerprint import build_id, fingerprint
from rllm.backends.llama.vocabulary import load_vocabulary
from rllm.backends.options import fallbacks
from rllm.config import Settings, pairs
from rllm.engine.types import SamplingDefaults
from rllm.errors import StartError
from rllm.observe.gpu import Gpus
from rllm.observe.live import Live
from rllm.observe.logs import capture_libraries, make_logger, native_sink
from rllm.observe.queued_writer import QueuedWriter
from rllm.serving.catalog import ModelPlan
from rllm.serving.observer import Observer
from rllm.serving.pool import Pool
from rllm.startup.banner import banner
from rllm.startup.gpu_fit import Card, fit
from rllm.startup.lifecycle import serve, survive_signals
from rllm.startup.listening import address_of, listening
from rllm.startup.preflight import Checked, available_bytes, check, check_exact, check_memory, prefix_store_mb
from rllm.startup.profiles import (
    Profile,
    ProfileKeeper,
    ProfileStore,
    apply,
    default_folder,
    describe_machine,
)
from rllm.startup.reliability import KeyFile, pool_settings, replicate
from rllm.startup.sampling import sampling_defaults
from rllm.startup.tls import Certificate
from rllm.startup.watching import Watchers
from rllm.tuning.session import Busy, is_tuned, tune_and_keep
from rllm.workers.frames import WorkerSpec

_LAST_WORDS_S = 1.0
"""Until a log that nobody reads is left behind."""


def run(settings: Settings) -> int:
    """Serve until told to stop; the exit code.

    Raises:
        StartError: one line for the operator.
    """
    survive_signals()
    # Hiding the GPUs changes the environment for a moment, which no worker may inherit: once, and first.
    lib.initialise(hide_gpus=True)
    with listening(settings.listening_hosts, settings.port, settings.uds) as listeners:
        gpus = Gpus()
        models = [check(model) for model in settings.served()]
        for checked in models:
            check_exact(checked, on_gpu=lib.is_cuda_build() and checked.model.gpu_layers != 0)
        models = _fit_memory(models, gpus, overcommit=settings.allow_overcommit)
        smaller, fallback = pairs(settings.smaller), pairs(settings.fallback)
        profiles = profile_store(settings.profile_dir, gpus)
        log = QueuedWriter(sys.stderr)
        logger = make_logger(settings.log_format, settings.log_level, log)
        log.on_dropped(lambda count: logger.error("log lines dropped", count=count))
        capture_libraries(logger, settings.log_level)
        lib.send_log_to(native_sink(logger))
        files = {checked.model.id: checked.model.gguf for checked in models}
        keeper = ProfileKeeper(profiles, files, lambda event, fields: logger.warning(event, **fields))
        try:
            _tune(settings, models, profiles, logger)
            plans = [
                _plan(checked, settings.log_level, smaller, fallback, profiles)
                for checked in _with_stores(models, gpus)
            ]
            serve_plans(
                settings, plans, listeners, logger, gpus, (keeper,), num_lines_dropped=lambda: log.num_dropped
            )
        finally:
            log.close(_LAST_WORDS_S)
    return 0


def serve_plans(
    settings: Settings,
    plans: Sequence[ModelPlan],
    listeners: Sequence[socket.socket],
    logger: FilteringBoundLogger,
    gpus: Gpus,
    observers: Sequence[Observer] = (),
    num_lines_dropped: Callable[[], int] = lambda: 0,
) -> None:
    """Serve ``plans`` with ``settings`` for all the rest. ``num_lines_dropped``: of the log, so far.

    Raises:
        StartError: one line for the operator.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, plans, listeners, logger, gpus, observers, num_lines_dropped))
    logger.info("stopped")


def unused_gpu(gpus: Gpus, device: str) -> str | None:
    """Why a model runs on ``device`` although the machine has a GPU; None where nothing is wrong."""
    if not len(gpus) or any(card.name in device for card in gpus.read()):
        return None
    if not lib.is_cuda_build():
        return "this build of llama-cpp-python has no CUDA: see RUNBOOK.md, 'GPU not used'"
    return "llama.cpp sees no CUDA device: check the driver and CUDA_VISIBLE_DEVICES"


async def _serve(
    settings: Settings,
    plans: Sequence[ModelPlan],
    listeners: Sequence[socket.socket],
    logger: FilteringBoundLogger,
    gpus: Gpus,
    observers: Sequence[Observer],
    num_lines_dropped: Callable[[], int],
) -> None:
    def detokenize(model: str, tokens: Sequence[int]) -> str:
        return pool.model(model).vocabulary.detokenize(tokens, special=True)

    keys, certificate = KeyFile(settings.keys_file), _certificate(settings)
    watchers = Watchers(settings, logger, gpus, detokenize, observers, num_lines_dropped)
    watchers.know_keys(keys.limits)
    background.hear_faults(asyncio.get_running_loop(), watchers.on_fault)
    pool = Pool(plans, pool_settings(settings, keys.limits), watchers.observer)
    app = create_app(
        pool,
        _api_settings(settings),
        render_metrics=watchers.render_metrics,
        on_start=watchers.on_start,
        on_request=watchers.on_request,
        more_keys=lambda: keys.entries,
        look=Live(pool, watchers.history, gpus) if watchers.history is not None else None,
        views=(lambda: pool.look(math.inf)) if settings.metrics else None,
    )
    addresses = [address_of(listener, tls=certificate is not None) for listener in listeners]
    address = str(addresses[0])

    async def on_ready() -> None:
        await app.state.warm()
        gc.collect()
        gc.freeze()  # a full collection over all the libraries takes 50 ms, in which nobody is answered
        gc.collect()  # of nothing: from here on a full one is due when little has been added
        threads = settings.threads or default_threads()
        with_key = bool(settings.api_key or keys.entries)
        health = pool.health()
        _say(banner(pool.models(), health, addresses, threads, _resident_bytes(), with_key, settings.ui))
        logger.info("ready", address=address, models=[model.id for model in pool.models()])
        for model in pool.models():
            if settings.gpu_layers != 0 and (reason := unused_gpu(gpus, model.info.device)):
                logger.error("GPU not used", model=model.id, device=model.info.device, reason=reason)

    def on_stopping(signal: str, drain_s: float) -> None:
        logger.info("stopping", signal=signal, drain_s=drain_s)

    def on_reload() -> None:
        try:
            keys.reload()
            if certificate is not None:
                certificate.load()
        except StartError as error:
            logger.error("reload failed", error=str(error))
            return
        pool.set_keys(keys.limits)
        watchers.know_keys(keys.limits)
        logger.info("reloaded", keys=len(keys.entries))

    num_workers = sum(len(plan.workers) for plan in plans)
    logger.info("loading", address=address, models=[plan.id for plan in plans])
    try:
        await serve(
            app,
            pool,
            listeners,
            drain_s=settings.drain_timeout_s,
            delay_s=settings.drain_delay_s,
            room=room_for(free_descriptors(), num_workers, settings.max_connections),
            on_ready=on_ready,
            on_stopping=on_stopping,
            on_reload=on_reload,
            tls=None if certificate is None else certificate.context,
        )
    finally:
        await watchers.close()


def _say(text: str) -> None:
    """On standard output, whether or not somebody reads it."""
    with contextlib.suppress(OSError, ValueError):  # it is closed
        QueuedWriter(sys.stdout).write(text + "\n")


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
    store = profile_store(settings.profile_dir, Gpus())
    known = apply(store.load(model.gguf), check(model).options)
    safe = known.fallback.options if known.fallback is not None else {}
    where = store.path(model.gguf)
    found: dict[str, tuple[object, str]] = {
        name: (value, f"tuned, {where}") for name, value in known.tuned.items()
    }
    found |= {name: (value, f"fall-back, {where}") for name, value in safe.items()}
    return found


def _tune(
    settings: Settings, models: Sequence[Checked], profiles: ProfileStore, logger: FilteringBoundLogger
) -> None:
    """Find out what is not known yet, while nothing is served."""
    if settings.tune == "off":
        return
    for checked in models:
        profile, model = profiles.load(checked.model.gguf), checked.model
        if is_tuned(profile, settings.tune_for, settings.tune):
            continue
        safe = Profile(model="", machine={}, fallback=profile.fallback if profile else None)
        options = apply(safe, checked.options).options
        try:
            found = tune_and_keep(profiles, model.gguf, options, settings.tune_for, settings.tune)
        except (Busy, OSError) as error:
            logger.warning("not tuned", model=model.id, reason=str(error))
            continue
        if found.tuned is None:
            logger.info("not tuned", model=model.id, reason=found.outcome.note)
        else:
            logger.info(
                "tuned", model=model.id, options=found.tuned.options, seconds=round(found.outcome.seconds, 1)
            )


def _plan(
    checked: Checked,
    log_level: str,
    smaller: Mapping[str, str],
    fallback: Mapping[str, str],
    profiles: ProfileStore,
) -> ModelPlan:
    model = checked.model
    known = apply(profiles.load(model.gguf), checked.options)
    on_gpu = lib.is_cuda_build() and model.gpu_layers != 0
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
    workers = replicate(worker, model.id, model.replicas, model.devices)
    given = {name: getattr(model, name) for name in SamplingDefaults.__struct_fields__}
    return ModelPlan(
        model.id,
        model.aliases,
        load,
        workers,
        sampling=sampling_defaults(model.gguf, given),
        smaller=smaller.get(model.id),
        fallback=fallback.get(model.id),
    )


def _api_settings(settings: Settings) -> ApiSettings:
    keys = (
        ApiKey.from_secret(f"key-{number}", key.get_secret_value())
        for number, key in enumerate(settings.api_key, start=1)
    )
    return ApiSettings(
        api_keys=tuple(keys),
        open_metrics=settings.open_metrics,
        allowed_hosts=_allowed_hosts(settings),
        any_model_name=settings.any_model_name,
        cors_origins=settings.cors_origin,
        trust_request_chat_template=settings.trust_request_chat_template,
        docs=settings.docs,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
        slow_client_timeout_s=settings.slow_client_timeout_s,
        keepalive_s=settings.keepalive_s,
    )


def _allowed_hosts(settings: Settings) -> tuple[str, ...] | None:
    """None: every name. Where a key is needed, a page that reaches the server under its own name has none.
    No page reaches a Unix socket."""
    if settings.allowed_hosts:
        return settings.allowed_hosts
    has_keys = bool(settings.api_key or settings.keys_file)
    return () if settings.listening_hosts and settings.is_loopback and not has_keys else None


def _fit_memory(models: Sequence[Checked], gpus: Gpus, *, overcommit: bool) -> list[Checked]:
    """The models with the slots that memory has room for. Those that go to GPUs as a whole are held against
    theirs; of a part nothing can be said.

    Raises:
        StartError: it has no room, and that is not allowed.
    """
    cards = _visible_cards(gpus) if lib.is_cuda_build() else []
    resident = [c for c in models if not cards or c.model.gpu_layers == 0 for _ in range(c.model.replicas)]
    if not overcommit:
        check_memory(resident, available_bytes(), "memory")
    whole = [checked for checked in models if cards and checked.model.gpu_layers < 0]
    try:
        fitted = fit(whole, cards)
    except StartError:
        if not overcommit:
            raise
        return list(models)
    known = {checked.model.id: checked for checked in fitted}
    return [known.get(checked.model.id, checked) for checked in models]


def _visible_cards(gpus: Gpus) -> list[Card]:
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


def _with_stores(models: Sequence[Checked], gpus: Gpus) -> list[Checked]:
    """Decide the size of prefix stores that was left open."""
    has_gpu = len(gpus) > 0 and lib.is_cuda_build()
    needed = sum(m.host_bytes * m.model.replicas for m in models if not has_gpu or m.model.gpu_layers == 0)
    free = (available_bytes() - needed) // sum(m.model.replicas for m in models)
    return [
        replace(checked, options=msgspec.structs.replace(checked.options, prefix_store_mb=size))
        for checked in models
        for size in [prefix_store_mb(checked.model, free, on_gpu=has_gpu and checked.model.gpu_layers != 0)]
    ]


def _certificate(settings: Settings) -> Certificate | None:
    if settings.ssl_certfile is None:
        return None
    password = settings.ssl_keyfile_password
    return Certificate(
        settings.ssl_certfile, settings.ssl_keyfile, password.get_secret_value() if password else ""
    )


def _resident_bytes() -> int:
    me = psutil.Process()
    return sum(process.memory_info().rss for process in (me, *me.children()))
