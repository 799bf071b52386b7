"""Answers in one piece, and the rudest one: no more bytes."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Scope, Send

from rllm.api.http.client import Client


async def send_json(send: Send, status: int, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> None:
    """One JSON answer, without a detour over a response object."""
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    raw += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def drop_connection(scope: Scope, client: Client) -> None:
    """Closing politely would wait until the client has read what is buffered; see `api.http.transport`."""
    abort = scope.get("extensions", {}).get("rllm.abort")
    if abort is not None:
        abort()
        await client.wait_gone()
