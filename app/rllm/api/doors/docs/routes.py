"""/docs: Swagger UI over /openapi.json, with nothing from another host."""

from __future__ import annotations

from fastapi import APIRouter

from rllm.api.doors.door import Context, Door
from rllm.api.http import pages

_SWAGGER_UI = ("swagger-ui-bundle.js", "swagger-ui.css")


def make_router(context: Context) -> APIRouter:
    router = APIRouter()
    if not context.settings.docs:
        return router
    files = {
        **pages.load("rllm.api.doors.docs", "static", pages.WITH_ICONS),
        **pages.load("rllm.api.doors.live", "ui", names=("icon.svg",)),
        **pages.load("fastapi_offline", "static", pages.WITH_ICONS, names=_SWAGGER_UI),
    }
    pages.add_page(router, "/docs", files)
    return router


DOCS = Door(make_router)
