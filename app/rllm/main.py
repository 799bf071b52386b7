"""Wires the program: settings in, a served pool out. Nothing else knows all the parts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from functools import partial

import click
import psutil
import uvloop
from structlog.typing import FilteringBoundLogger

from rllm.api.app import create_app
from rllm.api.records import RequestRecord
from rllm.api.settings import ApiKey, ApiSettings
from rllm.backends.llama import lib
from rllm.backends.llama.context import default_threads
from rllm.backends.llama.vocabulary import load_vocabulary
from rllm.banner import banner
from rllm.config import Settings
from rllm.lifecycle import listen, serve
from rllm.observe.gpu import Gpus
from rllm.observe.log_observer import LogObserver
from rllm.observe.logs import capture_libraries, make_logger
from rllm.observe.metrics import Metrics
from rllm.preflight import Checked, available_bytes, check, check_memory
from rllm.serving.admission import Limits
from rllm.serving.observer import Observers
from rllm.serving.pool import ModelPlan, Pool
from rllm.workers.frames import WorkerSpec


def run(settings: Settings) -> int:
    """Serve until told to stop; the exit code.

    Raises:
        StartError: one line for the operator.
    """
    logger = make_logger(settings.log_format, settings.log_level)
    capture_libraries(logger, settings.log_level)
    with listen(settings.host, settings.port) as listener:
        gpus = Gpus()
        models = [check(model) for model in settings.served()]
        if not settings.allow_overcommit:
            _check_memory(models, gpus)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, models, listener, logger, Metrics(gpus)))
    logger.info("stopped")
    return 0


async def _serve(
    settings: Settings,
    models: Sequence[Checked],
    listener: socket.socket,
    logger: FilteringBoundLogger,
    metrics: Metrics,
) -> None:
    limits = Limits(settings.max_queue_requests, settings.max_queue_tokens)
    plans = [_plan(checked, settings.log_level) for checked in models]

    def detokenize(model: str, tokens: Sequence[int]) -> str:
        return pool.model(model).vocabulary.detokenize(tokens, special=True)

    log = LogObserver(logger, detokenize if settings.log_prompts else None)
    pool = Pool(plans, limits, Observers(metrics, log), start_timeout_s=settings.start_timeout_s)

    def on_request(record: RequestRecord) -> None:
        metrics.on_request(record)
        log.on_request(record)

    app = create_app(pool, _api_settings(settings), render_metrics=metrics.render, on_request=on_request)
    address = _address(listener)

    async def on_ready() -> None:
        await app.state.warm()
        threads = settings.threads or default_threads()
        click.echo(banner(pool.models(), address, threads, _resident_bytes(), bool(settings.api_key)))
        logger.info("ready", address=address, models=[model.id for model in pool.models()])

    def on_stopping(signal: str, drain_s: float) -> None:
        logger.info("stopping", signal=signal, drain_s=drain_s)

    logger.info("loading", address=address, models=[checked.model.id for checked in models])
    await serve(
        app, pool, listener, drain_s=settings.drain_timeout_s, on_ready=on_ready, on_stopping=on_stopping
    )


def _plan(checked: Checked, log_level: str) -> ModelPlan:
    model = checked.model
    worker = WorkerSpec(
        name=f"{model.id}-0",
        endpoint="",  # each start of a worker makes its own
        model_path=str(model.gguf),
        llama=checked.options,
        scheduler=model.scheduler_options(),
        log_level="debug" if log_level == "debug" else "warning",
    )
    return ModelPlan(model.id, (), partial(load_vocabulary, model.gguf), (worker,))


def _api_settings(settings: Settings) -> ApiSettings:
    keys = (
        ApiKey.from_secret(f"key-{number}", key.get_secret_value())
        for number, key in enumerate(settings.api_key, start=1)
    )
    return ApiSettings(
        api_keys=tuple(keys),
        open_metrics=settings.open_metrics,
        cors_origins=settings.cors_origin,
        docs=settings.docs,
        max_body_bytes=settings.max_body_bytes,
        body_timeout_s=settings.body_timeout_s,
        slow_client_timeout_s=settings.slow_client_timeout_s,
        keepalive_s=settings.keepalive_s,
    )


def _check_memory(models: Sequence[Checked], gpus: Gpus) -> None:
    """Models that go to the GPU as a whole are held against its memory; of a part nothing can be said."""
    has_gpu = len(gpus) > 0 and lib.is_cuda_build()
    check_memory([m for m in models if not has_gpu or m.model.gpu_layers == 0], available_bytes(), "memory")
    if has_gpu:
        whole = [m for m in models if m.model.gpu_layers < 0]
        check_memory(whole, gpus.free_bytes(), "GPU memory")


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _resident_bytes() -> int:
    me = psutil.Process()
    return sum(process.memory_info().rss for process in (me, *me.children()))
