"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from rllm.api.doors.documented import documented
from rllm.api.doors.door import Context, Door
from rllm.api.doors.models.answers import Model, ModelList
from rllm.serving.service import ServedModel


def make_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["models"])

    @router.get("/v1/models", response_model=None, summary="The models there are", **documented(ModelList))
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [describe(model) for model in context.service.models()]}

    @router.get(
        "/v1/models/{model:path}", response_model=None, summary="One model", **documented(Model, missing=True)
    )
    async def one(model: str) -> dict[str, Any]:
        return describe(context.model(model))

    return router


def describe(model: ServedModel) -> dict[str, Any]:
    """OpenAI's fields, vLLM's ``max_model_len`` and llama-server's ``meta``. No paths of this machine."""
    info = model.info
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "rllm",
        "aliases": list(model.aliases),
        "max_model_len": info.ctx_per_slot,
        "meta": {
            "description": info.description,
            "architecture": info.architecture,
            "n_params": info.num_params,
            "size": info.size_bytes,
            "n_vocab": info.vocab_size,
            "n_ctx_train": info.num_ctx_train,
        },
    }


MODELS = Door(make_router)
