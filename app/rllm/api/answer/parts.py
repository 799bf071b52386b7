"""What an answer consists of, whichever door it leaves by.

A choice's text goes through one machine, which says what each piece of it is. The machine of a model without
reasoning or calls is the plain one: everything is `Text`. Others hold back what may still become a mark.

    Text* | Reasoning* | (CallBegin CallArguments* CallEnd)* | Refusal*   in any order, then one End

Concatenated, the texts of all parts are what the model wrote, without the marks between them. Nothing is
lost: what looked like a call and is none comes out as `Text`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from rllm.engine.types import FinishReason


class Text(msgspec.Struct, frozen=True, gc=False):
    """A piece of the answer proper; never empty."""

    text: str


class Reasoning(msgspec.Struct, frozen=True, gc=False):
    """A piece of the thought before or between the answer's texts; never empty."""

    text: str


class CallBegin(msgspec.Struct, frozen=True, gc=False):
    """The model calls a function. Only one call is open at a time."""

    index: int
    """0 for the answer's first call."""
    id: str
    name: str


class CallArguments(msgspec.Struct, frozen=True, gc=False):
    """A piece of the arguments' JSON of the open call; never empty."""

    index: int
    text: str


class CallEnd(msgspec.Struct, frozen=True, gc=False):
    """The open call is complete: its arguments are one JSON object."""

    index: int


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A piece of the sentence with which the model declines; never empty."""

    text: str


class End(msgspec.Struct, frozen=True, gc=False):
    """The last part of every choice."""

    finish: FinishReason
    stop_string: str | None = None
    """The stop string that matched, where one did."""
    called: bool = False
    """The answer has at least one complete call."""


Part = Text | Reasoning | CallBegin | CallArguments | CallEnd | Refusal | End


class Machine(Protocol):
    """Turns the text of one choice into parts. It never makes an `End`: that is the engine's word."""

    def parts(self, delta: str) -> Sequence[Part]:
        """What ``delta`` completes; empty while it is held back, or when ``delta`` is empty."""
        ...

    @property
    def is_thinking(self) -> bool:
        """What comes next belongs to a thought, as far as is known."""
        ...

    def rest(self) -> Sequence[Part]:
        """What was held back. Called once, after the last `parts`; what is open then is closed or is text."""
        ...


class Plain:
    """The machine of an answer that is text and nothing else. It has no state."""

    is_thinking = False

    def parts(self, delta: str) -> Sequence[Part]:
        return (Text(delta),) if delta else ()

    def rest(self) -> Sequence[Part]:
        return ()


PLAIN = Plain()
