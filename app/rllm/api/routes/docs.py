"""/docs: Swagger UI over /openapi.json, with nothing from another host."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rllm.api import pages
from rllm.api.json_body import shorten
from rllm.errors import NotFound

_SWAGGER_UI = ("swagger-ui-bundle.js", "swagger-ui.css")


def make_router() -> APIRouter:
    router = APIRouter()
    files = {
        **pages.load("rllm.api", "docs", pages.WITH_ICONS),
        **pages.load("rllm.api", "ui", names=("icon.svg",)),
        **pages.load("fastapi_offline", "static", pages.WITH_ICONS, names=_SWAGGER_UI),
    }

    @router.get("/docs", include_in_schema=False)
    async def index(request: Request) -> Response:
        return pages.send(files[pages.INDEX], request)

    @router.get("/docs/", include_in_schema=False)
    async def slash() -> Response:
        return RedirectResponse("../docs")

    @router.get("/docs/{name}", include_in_schema=False)
    async def file(name: str, request: Request) -> Response:
        if name not in files:
            raise NotFound(f"There is no file {shorten(name)!r} here.")
        return pages.send(files[name], request)

    return router
