"""Server-sent events of a streamed completion, parsed only as far as measuring needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec


class Details(msgspec.Struct):
    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: Details | None = None


class Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Choice(msgspec.Struct):
    text: str | None = None
    delta: Delta | None = None
    finish_reason: str | None = None

    @property
    def content(self) -> str:
        """What a user would see appear; a chunk with only a role has none."""
        if self.delta is not None:
            return self.delta.content or self.delta.reasoning_content or self.delta.reasoning or ""
        return self.text or ""


class Chunk(msgspec.Struct):
    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None
    """An object as OpenAI sends it, or whatever a server puts there."""


_DECODE = msgspec.json.Decoder(Chunk).decode


class EventReader:
    """Turns pieces of a response body, cut anywhere, into chunks. `done` is set by ``[DONE]``.

    An event ends at an empty line; its ``data:`` lines, one or several, are one payload
    (https://html.spec.whatwg.org/multipage/server-sent-events.html, 9.2.6).
    """

    def __init__(self) -> None:
        self._rest = b""
        self._payload: list[bytes] = []
        self.done = False

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """Raises msgspec.MsgspecError for an event that is not a completion chunk."""
        if self._rest:
            data = self._rest + data
        *lines, self._rest = data.split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._payload.append(line[5:].strip())
            elif not line.strip():
                yield from self._event()
            # else: a comment, or the name of an event

    def close(self) -> Iterator[Chunk]:
        """At the end of the body: an event whose empty line was left out. Raises as `feed` does."""
        yield from self.feed(b"\n\n")

    def _event(self) -> Iterator[Chunk]:
        payload, self._payload = b"\n".join(self._payload), []
        if payload == b"[DONE]":
            self.done = True
        elif payload:
            yield _DECODE(payload)
