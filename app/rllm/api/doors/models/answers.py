"""The answers as types, for the OpenAPI document."""

from __future__ import annotations

from typing import Literal

from rllm.api.doors.documented import AnswerModel


class ModelMeta(AnswerModel):
    description: str
    architecture: str
    n_params: int
    size: int
    n_vocab: int
    n_ctx_train: int


class Model(AnswerModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    aliases: list[str]
    max_model_len: int
    meta: ModelMeta


class ModelList(AnswerModel):
    object: Literal["list"]
    data: list[Model]
