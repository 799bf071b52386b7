"""Builds the ASGI application. Nothing is started here; the caller owns the service's life."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import rllm
from rllm.api.answer.prepare import Preparer
from rllm.api.answer.run import Answers
from rllm.api.counts import Counts
from rllm.api.doors.docs import openapi
from rllm.api.doors.door import Context, Door, Look, Views
from rllm.api.doors.every import DOORS
from rllm.api.http.authorization import Authorization, Keys
from rllm.api.http.cross_origin import cors_options
from rllm.api.http.errors import ErrorAnswer, answer_of, answer_of_http
from rllm.api.http.fair_threads import FairThreads
from rllm.api.http.hosts import Hosts
from rllm.api.http.json_body import BodyReader
from rllm.api.http.middleware import BodyLimit, Crowd, RequestScope, record_of
from rllm.api.http.paths import Paths
from rllm.api.http.records import Observer, Starter, ignore, ignore_start
from rllm.api.settings import ApiSettings
from rllm.api.text.tokenizing import Tokenizer
from rllm.errors import RllmError
from rllm.serving.service import Service

Lifespan = Callable[[], AbstractAsyncContextManager[None]]


def create_app(
    service: Service,
    settings: ApiSettings,
    *,
    render_metrics: Callable[[], bytes] | None,
    on_start: Starter = ignore_start,
    on_request: Observer = ignore,
    lifespan: Lifespan | None = None,
    more_keys: Keys = tuple,
    look: Look | None = None,
    views: Views | None = None,
    doors: Sequence[Door] = DOORS,
) -> FastAPI:
    """The OpenAI-compatible HTTP layer over ``service``.

    ``render_metrics`` returns the Prometheus text for /metrics; None: there is no such route. ``on_start``
    and ``on_request`` hear of every request when it arrives and when it is over. ``lifespan`` is entered when
    the server starts up and left when it shuts down, on its event loop. ``more_keys`` is asked for every
    request. ``look`` tells what the live page shows; without it there is no page. ``views`` tells what /slots
    shows; without it there is none.
    """
    threads = FairThreads(settings.text_threads)
    tokenizer = Tokenizer(
        threads,
        render_timeout_s=settings.render_timeout_s,
        trusts_templates=settings.trust_request_chat_template,
    )

    async def warm() -> None:
        """Study every vocabulary; for models that become ready later, ``app.state.warm`` is called then."""
        for model in service.models():
            await tokenizer.warm(model)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        try:
            async with lifespan() if lifespan else nullcontext():
                await warm()
                yield
        finally:
            await tokenizer.close()
            threads.close()
            bodies.close()

    app = FastAPI(
        title="rllm",
        version=rllm.__version__,
        description="GGUF models over the OpenAI API.",
        lifespan=life,
        openapi_url="/openapi.json" if settings.docs else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.warm = warm
    bodies = BodyReader(timeout_s=settings.body_timeout_s, counts=lambda: _counts(settings, service))
    answers = Answers(service, settings, Preparer(service, settings, tokenizer))
    context = Context(service, settings, answers, threads, bodies, tokenizer, render_metrics, look, views)
    routers = [door.make_router(context) for door in doors]
    for router in routers:
        app.include_router(router)
    _answer_errors(app)
    paths = [route.path for router in routers for route in router.routes if isinstance(route, Route)]
    _wrap(app, settings, paths, on_start, on_request, more_keys)

    def document() -> dict[str, Any]:
        return openapi.build(app, doors, service, settings, needs_key=bool(settings.api_keys or more_keys()))

    app.openapi = document  # type: ignore[method-assign] # FastAPI's own way
    return app


def _counts(settings: ApiSettings, service: Service) -> Counts:
    """A prompt has at most the tokens that some model here can hold."""
    longest = max((model.info.ctx_per_slot for model in service.models()), default=0)
    return replace(settings.counts, prompt_tokens=longest) if longest else settings.counts


def _answer_errors(app: FastAPI) -> None:
    """Every error that a route or the router raises goes through the one table."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, RllmError)
        return _respond(request, answer_of(error))

    async def of_router(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _respond(request, answer_of_http(error, request.method, request.url.path[:200]))

    app.add_exception_handler(RllmError, ours)
    app.add_exception_handler(HTTPException, of_router)


def _respond(request: Request, answer: ErrorAnswer) -> Response:
    record = record_of(request.scope)
    record.error_code, record.error_param = answer.code, answer.param
    headers: dict[str, Any] = dict(answer.headers)
    return Response(answer.body(), answer.status, headers, media_type="application/json")


def _wrap(
    app: FastAPI,
    settings: ApiSettings,
    routes: Sequence[str],
    on_start: Starter,
    on_request: Observer,
    more_keys: Keys,
) -> None:
    """The last one added is the outermost."""
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(Authorization, settings=settings, more_keys=more_keys)
    if settings.allowed_hosts is not None:
        app.add_middleware(Hosts, allowed=settings.allowed_hosts)
    app.add_middleware(Crowd)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            **cors_options(settings.cors_origins),
        )
    app.add_middleware(RequestScope, observe=on_request, start=on_start)
    app.add_middleware(Paths, routes=routes)
