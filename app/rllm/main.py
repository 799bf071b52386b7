"""Wires the program: settings in, a served pool out. Nothing else knows all the parts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import socket
import sys
from collections.abc import Callable, Sequence

import psutil
import uvloop
from structlog.typing import FilteringBoundLogger

from rllm import background
from rllm.api.app import create_app
from rllm.api.http.connections import free_descriptors, room_for
from rllm.backends.llama import lib
from rllm.backends.llama.context import default_threads
from rllm.errors import StartError
from rllm.observe.gpu import Gpus
from rllm.observe.live import Live
from rllm.observe.logs import capture_libraries, make_logger, native_sink
from rllm.observe.queued_writer import QueuedWriter
from rllm.serving.catalog import ModelPlan
from rllm.serving.observer import Observer
from rllm.serving.pool import Pool
from rllm.settings.settings import Settings
from rllm.settings.values import pairs
from rllm.startup.banner import banner
from rllm.startup.layers import KeyFile, api_settings, certificate, pool_settings
from rllm.startup.lifecycle import serve, survive_signals
from rllm.startup.listening import address_of, listening
from rllm.startup.memory import fit_memory, unused_gpu, with_stores
from rllm.startup.plans import plan, profile_store
from rllm.startup.preflight import check, check_exact
from rllm.startup.profiles import ProfileKeeper
from rllm.startup.watching import Watchers
from rllm.tuning.at_start import tune

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
    with listening(settings.listening_hosts, settings.server.port, settings.server.uds) as listeners:
        gpus = Gpus()
        models = [check(model) for model in settings.served()]
        for checked in models:
            check_exact(checked, on_gpu=lib.is_cuda_build() and not checked.is_on_cpu)
        models = fit_memory(models, gpus, overcommit=settings.start.allow_overcommit)
        smaller, fallback = pairs(settings.degrade.smaller), pairs(settings.degrade.fallback)
        profiles = profile_store(settings.start.profile_dir, gpus)
        log = QueuedWriter(sys.stderr)
        logger = make_logger(settings.logging.format, settings.logging.level, log)
        log.on_dropped(lambda count: logger.error("log lines dropped", count=count))
        capture_libraries(logger, settings.logging.level)
        lib.send_log_to(native_sink(logger))
        files = {checked.model.id: checked.model.gguf for checked in models}
        keeper = ProfileKeeper(profiles, files, lambda event, fields: logger.warning(event, **fields))
        try:
            tune(settings.start, models, profiles, logger)
            plans = [
                plan(checked, settings.logging.level, smaller, fallback, profiles)
                for checked in with_stores(models, gpus)
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

    keys, tls = KeyFile(settings.access.keys_file), certificate(settings)
    watchers = Watchers(settings, logger, gpus, detokenize, observers, num_lines_dropped)
    watchers.know_keys(keys.limits)
    background.hear_faults(asyncio.get_running_loop(), watchers.on_fault)
    pool = Pool(plans, pool_settings(settings, keys.limits), watchers.observer)
    app = create_app(
        pool,
        api_settings(settings),
        render_metrics=watchers.render_metrics,
        on_start=watchers.on_start,
        on_request=watchers.on_request,
        more_keys=lambda: keys.entries,
        look=Live(pool, watchers.history, gpus) if watchers.history is not None else None,
        views=(lambda: pool.look(math.inf)) if settings.observe.metrics else None,
    )
    addresses = [address_of(listener, tls=tls is not None) for listener in listeners]
    address = str(addresses[0])

    async def on_ready() -> None:
        await app.state.warm()
        gc.collect()
        gc.freeze()  # a full collection over all the libraries takes 50 ms, in which nobody is answered
        gc.collect()  # of nothing: from here on a full one is due when little has been added
        threads = settings.engine.threads or default_threads()
        with_key = bool(settings.access.api_key or keys.entries)
        models, health, with_page = pool.models(), pool.health(), settings.observe.ui
        _say(banner(models, health, addresses, threads, _resident_bytes(), with_key, with_page))
        logger.info("ready", address=address, models=[model.id for model in models])
        for model in models:
            if settings.engine.gpu_layers != 0 and (reason := unused_gpu(gpus, model.info.device)):
                logger.error("GPU not used", model=model.id, device=model.info.device, reason=reason)

    def on_stopping(signal: str, drain_s: float) -> None:
        logger.info("stopping", signal=signal, drain_s=drain_s)

    def on_reload() -> None:
        try:
            keys.reload()
            if tls is not None:
                tls.load()
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
            drain_s=settings.shutdown.timeout_s,
            delay_s=settings.shutdown.delay_s,
            room=room_for(free_descriptors(), num_workers, settings.http.max_connections),
            on_ready=on_ready,
            on_stopping=on_stopping,
            on_reload=on_reload,
            tls=None if tls is None else tls.context,
        )
    finally:
        await watchers.close()


def _say(text: str) -> None:
    """On standard output, whether or not somebody reads it."""
    with contextlib.suppress(OSError, ValueError):  # it is closed
        QueuedWriter(sys.stdout).write(text + "\n")


def _resident_bytes() -> int:
    me = psutil.Process()
    return sum(process.memory_info().rss for process in (me, *me.children()))
