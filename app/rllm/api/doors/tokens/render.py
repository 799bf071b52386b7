"""What would be asked of the model, without asking it: the prompt as text, as tokens, and counted."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from rllm.api.answer.convert import AnyGeneration, check_model, check_settings, engine_requests
from rllm.api.answer.prompting import prompts_of
from rllm.api.doors.context import Context, new_response_id
from rllm.api.doors.responses import Counted, Prompted, Rendered, documented
from rllm.api.fields.protocol import ChatCompletionRequest, CompletionRequest
from rllm.api.http.middleware import caller_of
from rllm.api.text.token_options import TokenOptions
from rllm.serving.service import ServedModel

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "seed")
_PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")


def make_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["tokens"])
    settings = context.settings

    @router.post(
        "/apply-template",
        response_model=None,
        summary="A conversation as the text of its prompt (llama-server)",
        **documented(Prompted, "ChatCompletionRequest"),
    )
    async def apply_template(request: Request) -> dict[str, str]:
        caller = caller_of(request.scope)
        wire = await context.bodies.read(request, ChatCompletionRequest, caller=caller)
        return {"prompt": await context.tokenizer.chat_text(enter(wire, 1), wire.messages, wire)}

    @router.post(
        "/v1/chat/completions/input_tokens",
        response_model=None,
        summary="How many tokens a conversation has (llama-server)",
        **documented(Counted, "ChatCompletionRequest"),
    )
    async def input_tokens(request: Request) -> dict[str, int]:
        caller = caller_of(request.scope)
        wire = await context.bodies.read(request, ChatCompletionRequest, caller=caller)
        return {"input_tokens": len((await prompts(wire, enter(wire, 1), caller))[0])}

    @router.post(
        "/v1/chat/completions/render",
        response_model=None,
        summary="A conversation as tokens, with what the model would be asked (vLLM)",
        **documented(Rendered, "ChatCompletionRequest"),
    )
    async def render_chat(request: Request) -> dict[str, Any]:
        caller = caller_of(request.scope)
        wire = await context.bodies.read(request, ChatCompletionRequest, caller=caller)
        model = enter(wire, 1)
        options = await context.tokenizer.options(model, wire, caller=caller)
        return _rendered(wire, (await prompts(wire, model, caller))[0], model, "chatcmpl", options)

    @router.post(
        "/v1/completions/render",
        response_model=None,
        summary="Prompts as tokens, with what the model would be asked (vLLM)",
        **documented(list[Rendered], "CompletionRequest"),
    )
    async def render_completion(request: Request) -> list[dict[str, Any]]:
        caller = caller_of(request.scope)
        wire = await context.bodies.read(request, CompletionRequest, caller=caller)
        model = enter(wire, len(wire.prompt))
        options = await context.tokenizer.options(model, wire, caller=caller)
        return [
            _rendered(wire, tokens, model, "cmpl", options) for tokens in await prompts(wire, model, caller)
        ]

    async def prompts(wire: AnyGeneration, model: ServedModel, caller: str) -> list[tuple[int, ...]]:
        return await prompts_of(wire, model, context.tokenizer, settings, caller)

    # Everything that the same body would be refused for where it is answered.
    def enter(wire: AnyGeneration, num_prompts: int) -> ServedModel:
        check_settings(wire, num_prompts, settings)
        model = context.model(wire.model)
        check_model(wire, model, settings)
        return model

    return router


def _rendered(
    wire: AnyGeneration, tokens: tuple[int, ...], model: ServedModel, kind: str, options: TokenOptions
) -> dict[str, Any]:
    request_id = new_response_id(kind)
    asked = engine_requests(wire, [tokens], model, request_id, options)[0]
    return {
        "request_id": request_id,
        "model": model.id,
        "token_ids": tokens,
        "stream": bool(wire.stream),
        "sampling_params": {
            "n": wire.n or 1,
            "max_tokens": asked.max_tokens,
            "min_tokens": asked.min_tokens,
            "ignore_eos": asked.ignore_eos,
            "stop": asked.stop,
            **{name: getattr(asked.sampling, name) for name in (*_SAMPLING, *_PENALTIES)},
        },
    }
