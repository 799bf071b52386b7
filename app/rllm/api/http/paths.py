"""One path and one method per route, whatever a client has made of its base URL.

/chat/completions and //v1/chat/completions/ are /v1/chat/completions, /v1/health is /health, and HEAD is GET
without a body. Everything after this, the check of keys first of all, sees the one path.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

_VERSION = "v1"
_PAGES = ("/ui/", "/docs/")
"""Their files name each other relative to the path, so a slash must stay."""


class Paths:
    """Rewrites path and method in a copy of the scope: uvicorn still sees HEAD, and sends no body."""

    def __init__(self, app: ASGIApp, *, routes: Iterable[str]) -> None:
        """``routes``: the paths there are."""
        self._app = app
        split = [_parts(route) for route in routes]
        self._versioned = {parts[1] for parts in split if parts[:1] == [_VERSION] and len(parts) > 1}
        self._plain = {parts[0] for parts in split if parts and parts[0] != _VERSION}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            scope = {**scope, "path": self.of(scope["path"]), "method": method}
        await self._app(scope, receive, send)

    def of(self, path: str) -> str:
        if path.startswith(_PAGES):
            return path
        parts = _parts(path)
        first = parts[0] if parts else ""
        if first == _VERSION and len(parts) > 1 and parts[1] in self._plain - self._versioned:
            parts = parts[1:]
        elif first in self._versioned - self._plain:
            parts = [_VERSION, *parts]
        return "/" + "/".join(parts)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]
