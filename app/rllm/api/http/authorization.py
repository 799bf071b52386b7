"""Who asks, and what may he see: ``Authorization: Bearer KEY``, or Anthropic's ``x-api-key: KEY``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from rllm.api.http.errors import answer_of
from rllm.api.http.middleware import record_of, send_error
from rllm.api.settings import ApiSettings, NamedKey, find_key
from rllm.errors import Forbidden, NotAuthorized

OPEN = frozenset({"/", "/health", "/health/live", "/health/ready", "/ping", "/ui"})
_OPEN_FILES = "/ui/"
"""The live page is the same for everybody; what it shows needs a key."""
_IS_OPERATOR = "rllm_is_operator"

Keys = Callable[[], Sequence[NamedKey]]
"""Keys that may change while the server runs."""


class Authorization:
    """Asks for a key where any are configured. /health*, /ping and /ui are open, /metrics on request."""

    def __init__(self, app: ASGIApp, *, settings: ApiSettings, more_keys: Keys) -> None:
        self._app = app
        self._settings = settings
        self._more_keys = more_keys
        self._open = OPEN | {"/metrics"} if settings.open_metrics else OPEN

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open(scope["path"]) or not self._keys:
            await self._app(scope, receive, send)
            return
        try:
            key = self._key(scope)
        except NotAuthorized as error:
            record_of(scope).error_code = error.code
            await send_error(send, answer_of(error))
            return
        record_of(scope).client_key = key.name
        scope["state"][_IS_OPERATOR] = key.operator
        await self._app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path in self._open or path.startswith(_OPEN_FILES)

    @property
    def _keys(self) -> tuple[NamedKey, ...]:
        return (*self._settings.api_keys, *self._more_keys())

    def _key(self, scope: Scope) -> NamedKey:
        secrets = [secret for secret in (_bearer(scope), _api_key(scope)) if secret]
        if not secrets:
            raise NotAuthorized(
                "You need an API key: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'.",
                code="missing_api_key",
            )
        found = [find_key(self._keys, secret) for secret in secrets]
        key = found[0]
        if key is None or None in found:
            raise NotAuthorized("Incorrect API key provided.")
        if any(other is not key for other in found):
            raise NotAuthorized("Authorization and x-api-key hold the keys of two callers.")
        return key


def operators_only(request: Request) -> None:
    """A dependency of routes that show what all callers do.

    Raises:
        Forbidden: the caller's key is not the operator's.
    """
    if not request.scope["state"].get(_IS_OPERATOR, True):  # unset: no key was asked for
        raise Forbidden(
            f"{request.url.path[:200]} shows what all callers do, and this API key is a caller's: only a key "
            "with 'operator = true' in the keys file sees it."
        )


def _bearer(scope: Scope) -> bytes:
    header = _only(scope, b"authorization")
    scheme, _, secret = header.partition(b" ")
    if header and scheme.lower() != b"bearer":
        raise NotAuthorized("The Authorization header must be 'Bearer KEY'.")
    return secret.strip()


def _api_key(scope: Scope) -> bytes:
    return _only(scope, b"x-api-key").strip()


def _only(scope: Scope, name: bytes) -> bytes:
    """The header's value, empty without one. Of two, a proxy may have looked at the other."""
    values: list[bytes] = [value for key, value in scope["headers"] if key == name]
    if len(values) > 1:
        raise NotAuthorized(f"There must be one {name.decode()} header; got {len(values)}.")
    return values[0] if values else b""
