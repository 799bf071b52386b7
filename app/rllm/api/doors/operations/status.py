"""What llama-server and vLLM tell of themselves, for the clients and routers that were made for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends
from starlette.requests import Request

import rllm
from rllm.api.doors.documented import documented
from rllm.api.doors.door import Context, Door
from rllm.api.doors.operations.answers import (
    Load,
    Props,
    Slot,
    TokenizerInfo,
    Version,
    documented_slots,
    model_parameter,
)
from rllm.api.http.authorization import operators_only
from rllm.engine.snapshot import Phase, SequenceView
from rllm.errors import Overloaded
from rllm.serving.service import ServedModel
from rllm.serving.view import InstanceView, ModelView

_IDLE = SequenceView(seq=-1, phase=Phase.IDLE, computed_tokens=0)


def make_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["status"])

    @router.get("/version", response_model=None, summary="This version (vLLM)", **documented(Version))
    async def version() -> dict[str, str]:
        return {"version": rllm.__version__}

    @router.get("/load", response_model=None, summary="Requests under way (vLLM)", **documented(Load))
    async def load() -> dict[str, int]:
        return {"server_load": context.service.num_in_flight()}

    @router.get(
        "/props",
        response_model=None,
        summary="A model's properties (llama-server)",
        **model_parameter(documented(Props, missing=True)),
    )
    async def props(request: Request) -> dict[str, Any]:
        return _props(context.model(request.query_params.get("model")))

    @router.get(
        "/tokenizer_info",
        response_model=None,
        summary="A model's tokenizer (vLLM)",
        **model_parameter(documented(TokenizerInfo, missing=True)),
    )
    async def tokenizer_info(request: Request) -> dict[str, Any]:
        model = context.model(request.query_params.get("model"))
        return _tokenizer_info(model, adds_bos=bool(await context.tokenizer.beginning(model)))

    if (views := context.views) is not None:

        @router.get(
            "/slots",
            response_model=None,
            summary="What each slot is doing (llama-server)",
            tags=["operations"],
            dependencies=[Depends(operators_only)],
            **documented_slots(Slot),
        )
        async def slots(request: Request) -> list[dict[str, Any]]:
            found = [slot for view in await views() for slot in _slots(view)]
            if request.query_params.get("fail_on_no_slot") and all(each["is_processing"] for each in found):
                raise Overloaded("no slot is free", code="no_slot", retry_after_s=1.0)
            return [{"id": number, **slot} for number, slot in enumerate(found)]

    return router


def _props(model: ServedModel) -> dict[str, Any]:
    info, sampling, vocabulary = model.info, model.sampling, model.vocabulary
    params = {name: getattr(sampling, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    return {
        "default_generation_settings": {"n_ctx": info.ctx_per_slot, "params": params},
        "total_slots": info.slots,
        "model_alias": model.id,
        "model_path": Path(info.path).name,  # where files are is nobody's business
        "modalities": {"vision": False, "audio": False},
        "chat_template": vocabulary.chat_template or "",
        "bos_token": vocabulary.bos_text,
        "eos_token": vocabulary.eos_text,
        "build_info": f"rllm {rllm.__version__}",
        "is_sleeping": False,
    }


def _tokenizer_info(model: ServedModel, *, adds_bos: bool) -> dict[str, Any]:
    vocabulary = model.vocabulary
    return {
        "tokenizer_class": "llama.cpp",
        "vocab_size": vocabulary.size,
        "model_max_length": model.info.ctx_per_slot,
        "bos_token": vocabulary.bos_text,
        "eos_token": vocabulary.eos_text,
        "add_bos_token": adds_bos,
        "chat_template": vocabulary.chat_template,
    }


def _slots(view: ModelView) -> Iterator[dict[str, Any]]:
    """As many for each instance as it has, those that work first: prefixes that are kept take no slot."""
    for instance in view.instances:
        busy = [sequence for sequence in instance.sequences if sequence.phase is not Phase.IDLE]
        for number in range(max(instance.slots, len(busy))):
            yield _slot(view, instance, busy[number] if number < len(busy) else _IDLE)


def _slot(model: ModelView, instance: InstanceView, sequence: SequenceView) -> dict[str, Any]:
    works = sequence.phase is not Phase.IDLE
    token = {
        "has_next_token": works,
        "n_remain": sequence.max_tokens - sequence.output_tokens,
        "n_decoded": sequence.output_tokens,
    }
    return {
        "model": model.id,
        "instance": instance.name,
        "n_ctx": instance.ctx_per_slot,
        "speculative": False,
        "is_processing": works,
        "phase": sequence.phase.value,
        "request_id": sequence.request_id,
        "n_prompt_tokens": sequence.prompt_tokens,
        "n_prompt_tokens_processed": min(sequence.computed_tokens, sequence.prompt_tokens),
        "n_prompt_tokens_cache": sequence.cached_tokens,
        "next_token": [token],
    }


STATUS = Door(make_router)
