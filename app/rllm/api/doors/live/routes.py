"""The live page at /ui, and the state of the server that it shows."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rllm.api.doors.documented import errors
from rllm.api.doors.door import Context, Door
from rllm.api.doors.live import live_state
from rllm.api.http import pages
from rllm.api.http.authorization import operators_only
from rllm.api.http.json_body import shorten
from rllm.errors import BadRequest

_encoder = msgspec.json.Encoder()


def make_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["operations"])
    if (look := context.look) is None:
        return router

    @router.get(
        "/v1/rllm/state",
        response_model=None,
        summary="What every slot is doing, the last five minutes, and what limits the server",
        dependencies=[Depends(operators_only)],
        **_documented(),
    )
    async def state(request: Request) -> Response:
        since = _since(request.query_params.get("since", "0"))
        body = _encoder.encode(await look(since))
        return Response(body, media_type="application/json", headers={"cache-control": "no-store"})

    @router.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("ui")

    pages.add_page(router, "/ui", pages.load("rllm.api.doors.live", "ui"))
    return router


def _since(text: str) -> float:
    try:
        since = float(text)
    except ValueError:
        since = math.nan
    if not math.isfinite(since) or since < 0:
        raise BadRequest(f"since must be a number of seconds, not {shorten(text)!r}", param="since")
    return since


def _documented() -> dict[str, Any]:
    since = {
        "name": "since",
        "in": "query",
        "required": False,
        "description": "The `time` of the last answer: of history and spans, only what is newer is sent.",
        "schema": {"type": "number", "minimum": 0},
    }
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/LiveState"}}}
    ok = {"description": "The state now", "content": body}
    return {"responses": {200: ok, **errors(400, 401, 403)}, "openapi_extra": {"parameters": [since]}}


LIVE = Door(make_router, schemas=live_state.schemas)
