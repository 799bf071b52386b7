"""Which names a request may call the server by.

DNS rebinding: a web page's own name is made to point to 127.0.0.1, and the browser lets the page read what it
finds there. The Host header then still has the page's name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from rllm.api.http.errors import answer_of
from rllm.api.http.json_body import shorten
from rllm.api.http.middleware import record_of, send_error
from rllm.errors import BadRequest, Forbidden, RllmError

_LOOPBACK = ("localhost", "*.localhost")
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:@/\s]+))(?::[0-9]{1,5})?")


class Hosts:
    """Refuses requests whose Host is none of ``allowed``, and those with two."""

    def __init__(self, app: ASGIApp, *, allowed: Iterable[str]) -> None:
        self._app = app
        self._is_allowed = matcher(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._refusal(scope) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
            return
        record_of(scope).error_code = error.code
        await send_error(send, answer_of(error))

    def _refusal(self, scope: Scope) -> RllmError | None:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        if len(hosts) > 1:
            return BadRequest(f"there must be one Host header; got {len(hosts)}", param="host")
        if not hosts or not hosts[0]:  # no browser leaves it out; HTTP/1.0 clients do
            return None
        name = name_of(hosts[0])
        if name is not None and self._is_allowed(name):
            return None
        return Forbidden(
            f"This server is not called {shorten(hosts[0])!r}. Call it by a name of this machine alone "
            "(localhost, 127.0.0.1), or allow the name with --allowed-hosts.",
            param="host",
            code="host_not_allowed",
        )


def matcher(allowed: Iterable[str]) -> Callable[[str], bool]:
    """Loopback names are always allowed, for no page from elsewhere can have one. So are addresses: a name
    can be made to point to another machine, an address cannot."""
    patterns = [pattern.lower().rstrip(".") for pattern in (*_LOOPBACK, *allowed)]
    names = frozenset(pattern for pattern in patterns if "*" not in pattern)
    endings = tuple(pattern[1:] for pattern in patterns if pattern.startswith("*."))

    def is_allowed(name: str) -> bool:
        return "*" in patterns or name in names or name.endswith(endings) or _is_address(name)

    return is_allowed


def name_of(host: str) -> str | None:
    """ "LOCALHOST:8000" -> "localhost", "[::1]:8000" -> "::1"; None for what is no host."""
    match = _HOST.fullmatch(host.strip().lower())
    return (match[1] or match[2]).rstrip(".") if match else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
