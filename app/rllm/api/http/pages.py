"""Files of our pages, read once, and the headers they go out with."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rllm.api.http.json_body import shorten
from rllm.errors import NotFound

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
STRICT = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
WITH_ICONS = STRICT.replace("img-src 'self'", "img-src 'self' data:")
"""For Swagger UI, whose icons are in its style sheet."""
INDEX = "index.html"


@dataclass(frozen=True, slots=True)
class Page:
    body: bytes
    headers: dict[str, str]

    @property
    def etag(self) -> str:
        return self.headers["etag"]


def load(
    package: str, folder: str, policy: str = STRICT, *, names: Collection[str] | None = None
) -> dict[str, Page]:
    """By file name. ``names``: only these."""
    return {
        entry.name: _page(entry.read_bytes(), _TYPES[suffix], policy)
        for entry in (files(package) / folder).iterdir()
        if (suffix := "." + entry.name.rpartition(".")[2]) in _TYPES
        and (names is None or entry.name in names)
    }


def add_page(router: APIRouter, path: str, pages: Mapping[str, Page]) -> None:
    """GET ``path`` is the page, its files are below it. They name each other relative to ``path``, so a slash
    at its end leads back."""

    @router.get(path, include_in_schema=False)
    async def index(request: Request) -> Response:
        return _send(pages[INDEX], request)

    @router.get(f"{path}/", include_in_schema=False)
    async def slash() -> Response:
        return RedirectResponse(f"..{path}")

    @router.get(f"{path}/{{name}}", include_in_schema=False)
    async def file(name: str, request: Request) -> Response:
        if name not in pages:
            raise NotFound(f"There is no file {shorten(name)!r} here.")
        return _send(pages[name], request)


def _send(page: Page, request: Request) -> Response:
    if request.headers.get("if-none-match") == page.etag:
        return Response(status_code=304, headers=page.headers)
    return Response(page.body, headers=page.headers)


def _page(body: bytes, kind: str, policy: str) -> Page:
    return Page(
        body,
        {
            "content-type": kind,
            "etag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
            "cache-control": "no-cache",
            "content-security-policy": policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
        },
    )
