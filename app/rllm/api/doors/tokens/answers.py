"""The answers as types, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from rllm.api.doors.documented import AnswerModel


class Piece(AnswerModel):
    id: int
    piece: str


class Tokenized(AnswerModel):
    tokens: list[int] | list[Piece]
    count: int
    max_model_len: int
    token_strs: list[str] | None = None


class Prompted(AnswerModel):
    prompt: str


class Counted(AnswerModel):
    input_tokens: int


class Rendered(AnswerModel):
    request_id: str
    model: str
    token_ids: list[int]
    stream: bool
    sampling_params: dict[str, Any]


class Detokenized(AnswerModel):
    content: str
    prompt: str
