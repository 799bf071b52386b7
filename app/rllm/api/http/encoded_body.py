"""Compressed request bodies (RFC 9110, 8.4), decoded as they arrive and never to more than is wanted."""

from __future__ import annotations

import zlib

from starlette.types import Message, Receive

from rllm.errors import BadRequest, WrongMediaType

_CODINGS = {b"gzip": zlib.MAX_WBITS | 16, b"x-gzip": zlib.MAX_WBITS | 16, b"deflate": zlib.MAX_WBITS}
_PLAIN = frozenset({b"", b"identity"})


class EncodedBody:
    """``EncodedBody(coding, most)(receive)`` is a `receive` that gives the decoded body.

    It may give up to one byte more than ``most``, so that whoever counts sees that there was more.
    """

    def __init__(self, coding: bytes, most: int) -> None:
        """
        Raises:
            WrongMediaType: this coding is not known.
        """
        name = coding.strip().lower()
        if name not in _CODINGS:
            shown = name.decode("latin-1")[:40]
            error = WrongMediaType(f"the content-encoding {shown!r} is not supported: gzip, deflate or none")
            error.headers = (("accept-encoding", "gzip, deflate"),)
            raise error
        self._name = name.decode()
        self._decoder = zlib.decompressobj(_CODINGS[name])
        self._left = most + 1

    def __call__(self, receive: Receive) -> Receive:
        async def decoded() -> Message:
            message = await receive()
            if message["type"] != "http.request":
                return message
            body = self._decode(message.get("body", b""), is_last=not message.get("more_body", False))
            return {**message, "body": body}

        return decoded

    def _decode(self, data: bytes, *, is_last: bool) -> bytes:
        if self._left <= 0:
            return b""
        try:
            body = self._decoder.decompress(data, self._left)
        except zlib.error:
            raise BadRequest(f"the body is no {self._name}, which its content-encoding says it is") from None
        self._left -= len(body)
        if is_last and self._left > 0 and not self._decoder.eof:
            raise BadRequest(f"the body ends before its {self._name} does")
        return body


def is_encoded(coding: bytes) -> bool:
    return coding.strip().lower() not in _PLAIN
