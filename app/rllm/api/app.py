"""Builds the ASGI application. Nothing is started here; the caller owns the service's life."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fastapi import FastAPI

from rllm.api.records import Observer, ignore
from rllm.api.settings import ApiSettings
from rllm.serving.service import Service

Lifespan = Callable[[], AbstractAsyncContextManager[None]]


def create_app(
    service: Service,
    settings: ApiSettings,
    *,
    render_metrics: Callable[[], bytes],
    on_request: Observer = ignore,
    lifespan: Lifespan | None = None,
) -> FastAPI:
    """The OpenAI-compatible HTTP layer over ``service``.

    ``render_metrics`` returns the Prometheus text for /metrics. ``lifespan`` is entered when the server
    starts up and left when it shuts down, on its event loop.
    """
    raise NotImplementedError
