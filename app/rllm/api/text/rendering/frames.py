"""What the API process and a rendering process say to each other: msgpack, each frame after its length."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from rllm.api.text.control_text import Piece
from rllm.api.text.formats.shapes import AnswerFormat

HEAD = 4
"""Bytes of a frame's length."""


MOST_SHOWN = 128 * 1024
"""Characters that a template may write for one of the small conversations of `Discover`."""


class Load(msgspec.Struct, frozen=True, tag=True):
    """The first frame: the template that this process renders, once and for all."""

    source: str
    bos_text: str
    eos_text: str
    controls: tuple[str, ...]
    """The texts of the vocabulary's control tokens."""


class Render(msgspec.Struct, frozen=True, tag=True):
    variables: dict[str, Any]
    without_bos: bool
    continues: bool
    """The prompt ends where the last message does."""
    max_chars: int
    timeout_s: float
    """When the API process kills; the process ends itself a little later, should that one be gone."""


class Discover(msgspec.Struct, frozen=True, tag=True):
    """How does the model write calls and thoughts?"""

    timeout_s: float


class Started(msgspec.Struct, frozen=True, tag=True):
    """The process is there; what happens from now on is the template's doing."""


class Loaded(msgspec.Struct, frozen=True, tag=True):
    pass


class Rendered(msgspec.Struct, frozen=True, tag=True):
    pieces: list[Piece]


class Discovered(msgspec.Struct, frozen=True, tag=True):
    form: AnswerFormat


class Problem(msgspec.Struct, frozen=True, tag=True):
    """No prompt. In answer to `Load`: why the template is broken; to `Render`: a sentence for the client."""

    reason: str
    param: str = "messages"
    is_length: bool = False
    """The messages make a prompt that is too long."""


Order: TypeAlias = Load | Render | Discover
Answer: TypeAlias = Started | Loaded | Rendered | Discovered | Problem

_encoder = msgspec.msgpack.Encoder()
_orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def pack(frame: Order | Answer) -> bytes:
    data = _encoder.encode(frame)
    return len(data).to_bytes(HEAD, "little") + data


def most_bytes(max_chars: int) -> int:
    """The longest answer to a `Render`: pieces of a few characters each, four bytes a character."""
    return 16 * max_chars + 4096


decode_order = _orders.decode
decode_answer = _answers.decode
