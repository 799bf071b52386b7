"""What a door does with parts: the port between an answer and the bytes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from rllm.api.answer.choice import Choice, Delta
from rllm.api.answer.job import Job
from rllm.api.http.errors import ErrorAnswer


class Writer(Protocol):
    """Writes one answer in one door's shape. One is made per answer, and used as a stream or as a whole."""

    def opening(self, index: int) -> bytes:
        """What a stream says of a choice before its first token."""
        ...

    def progress(self, choice: Choice) -> bytes:
        """A part of its prompt was computed."""
        ...

    def delta(self, choice: Choice, delta: Delta) -> bytes:
        """Called for every token of a stream: what does not change is to be encoded once, before."""
        ...

    def closing(self) -> bytes:
        """The end of a stream that is complete."""
        ...

    def error(self, answer: ErrorAnswer) -> bytes:
        """The end of a stream that is not."""
        ...

    def whole(self, deltas: Sequence[Delta]) -> bytes:
        """Not a stream: everything at once, one delta per choice. May run in a thread."""
        ...


NewWriter = Callable[[Job, Sequence[Choice]], Writer]
"""Makes the writer of one answer; the choices fill while it writes."""
