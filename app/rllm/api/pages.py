"""The files of the live page, read once, and the headers they go out with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
INDEX = "index.html"


@dataclass(frozen=True, slots=True)
class Page:
    body: bytes
    headers: dict[str, str]

    @property
    def etag(self) -> str:
        return self.headers["etag"]


def load() -> dict[str, Page]:
    """By file name."""
    folder = files("rllm.api") / "ui"
    return {
        entry.name: _page(entry.read_bytes(), _TYPES[suffix])
        for entry in folder.iterdir()
        if (suffix := "." + entry.name.rpartition(".")[2]) in _TYPES
    }


def _page(body: bytes, kind: str) -> Page:
    return Page(
        body,
        {
            "content-type": kind,
            "etag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
            "cache-control": "no-cache",
            "content-security-policy": _POLICY,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
        },
    )
