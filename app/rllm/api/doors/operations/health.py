"""Health and metrics, for machines that watch."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse, Response

from rllm.api.doors.door import Context, Door
from rllm.api.doors.operations.answers import Alive, HealthReport, documented_health, documented_metrics
from rllm.api.http.authorization import operators_only


def make_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["operations"])

    @router.get(
        "/health/live", response_model=None, summary="The process answers", **documented_health(Alive)
    )
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @router.get(
        "/health/ready",
        response_model=None,
        summary="New requests are accepted and would make progress",
        **documented_health(HealthReport, unready=True),
    )
    async def ready() -> Response:
        return _report(context)

    @router.get(
        "/health",
        response_model=None,
        summary="The same as /health/ready, where llama-server has it",
        **documented_health(HealthReport, unready=True),
    )
    async def health() -> Response:
        return _report(context)

    @router.get(
        "/ping",
        response_model=None,
        summary="The same, where vLLM and SageMaker have it",
        **documented_health(HealthReport, unready=True),
    )
    @router.post("/ping", response_model=None, include_in_schema=False)
    async def ping() -> Response:
        return _report(context)

    if (render := context.render_metrics) is not None:

        @router.get(
            "/metrics",
            response_model=None,
            summary="Metrics for Prometheus",
            dependencies=[Depends(operators_only)],
            **documented_metrics(),
        )
        async def metrics() -> Response:
            return Response(render(), media_type="text/plain; version=0.0.4")

    return router


def _report(context: Context) -> Response:
    """llama-server's words where it has some: "ok", and an error of type unavailable_error."""
    health = context.service.health()
    body: dict[str, Any] = {
        "status": "ok" if health.ready else health.reason,
        "instances": dict(health.instances),
    }
    if health.fallbacks:
        body["fallbacks"] = {name: msgspec.to_builtins(fallback) for name, fallback in health.fallbacks}
    if health.tuned:
        body["tuned"] = dict(health.tuned)
    if health.not_served:
        body["not_served"] = dict(health.not_served)
    if health.ready:
        return JSONResponse(body)
    message = f"not ready: {health.reason}"
    body["error"] = {"message": message, "type": "unavailable_error", "param": None, "code": "not_ready"}
    return JSONResponse(body, status_code=503, headers={"retry-after": "1"})


HEALTH = Door(make_router)
