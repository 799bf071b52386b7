"""The bytes of a streamed answer.

Everything that does not change during a stream is encoded once; a token costs one JSON string.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from rllm.api.http.errors import ErrorAnswer

DONE = b"data: [DONE]\n\n"

_MARK = "\u0000text\u0000"
_ENCODED_MARK = orjson.dumps(_MARK)


def sse(data: Any) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


def error_event(answer: ErrorAnswer) -> bytes:
    """Typed clients raise on this; no [DONE] follows, because it is not done."""
    return b"data: " + answer.body() + b"\n\n"


@dataclass(frozen=True, slots=True)
class Extras:
    """What a chunk says beside its text, where that was asked for."""

    of_choice: dict[str, Any]
    of_chunk: dict[str, Any]


class Chunks(Protocol):
    """How one kind of answer is cut into chunks."""

    def opening(self, index: int, of_chunk: dict[str, Any]) -> bytes:
        """What comes before the first token; ``of_chunk`` is said beside it, where there is such a chunk."""
        ...

    def text(
        self,
        index: int,
        text: str,
        *,
        logprobs: Any | None = None,
        finish: str | None = None,
        extras: Extras | None = None,
    ) -> bytes: ...

    def usage(self, usage: dict[str, Any]) -> bytes: ...


class _Base:
    def __init__(
        self, head: dict[str, Any], num_choices: int, *, with_usage: bool, echo: Sequence[str] = ()
    ) -> None:
        """
        Args:
            head: id, object, created, model, system_fingerprint.
            echo: what the answers begin with, one for each choice, or nothing.
        """
        self._head = head
        self._echo = echo
        self._null_usage: dict[str, Any] = {"usage": None} if with_usage else {}
        self._around = [self._split(index) for index in range(num_choices)]

    def text(
        self,
        index: int,
        text: str,
        *,
        logprobs: Any | None = None,
        finish: str | None = None,
        extras: Extras | None = None,
    ) -> bytes:
        if logprobs is None and finish is None and extras is None:
            before, after = self._around[index]
            return before + orjson.dumps(text) + after
        choice = {**self._choice(index, text), "logprobs": logprobs, "finish_reason": finish}
        if extras is None:
            return sse(self._chunk(choice))
        return sse({**self._chunk({**choice, **extras.of_choice}), **extras.of_chunk})

    def usage(self, usage: dict[str, Any]) -> bytes:
        return sse({**self._head, "choices": [], "usage": usage})

    def _split(self, index: int) -> tuple[bytes, bytes]:
        choice = {**self._choice(index, _MARK), "logprobs": None, "finish_reason": None}
        before, after = sse(self._chunk(choice)).split(_ENCODED_MARK)
        return before, after

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self._head, "choices": [choice], **self._null_usage}

    def _choice(self, index: int, text: str) -> dict[str, Any]:
        raise NotImplementedError


class ChatChunks(_Base):
    def opening(self, index: int, of_chunk: dict[str, Any]) -> bytes:
        echo = self._echo[index] if self._echo else ""
        delta = {"role": "assistant", "content": echo, "refusal": None}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        return sse({**self._chunk(choice), **of_chunk})

    def _choice(self, index: int, text: str) -> dict[str, Any]:
        return {"index": index, "delta": {"content": text} if text else {}}


class CompletionChunks(_Base):
    def opening(self, index: int, of_chunk: dict[str, Any]) -> bytes:
        """Nothing is said before the first token, unless the prompt is to be repeated."""
        return self.text(index, self._echo[index]) if self._echo else b""

    def _choice(self, index: int, text: str) -> dict[str, Any]:
        return {"index": index, "text": text}
