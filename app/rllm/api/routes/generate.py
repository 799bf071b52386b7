"""POST /v1/chat/completions and /v1/completions."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rllm.api.context import Context, new_response_id, now
from rllm.api.convert import (
    AnyGeneration,
    Job,
    check_model,
    check_scores,
    check_settings,
    check_token_ids,
    engine_requests,
)
from rllm.api.fields import Prompt
from rllm.api.generation import Generation
from rllm.api.middleware import caller_of, record_of
from rllm.api.protocol import ChatCompletionRequest, CompletionRequest
from rllm.api.records import RequestRecord
from rllm.api.responses import ChatCompletion, Completion, documented
from rllm.api.terms import terms_of
from rllm.serving.service import ServedModel
from rllm.serving.terms import Terms


def make_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["generation"])
    settings = context.settings

    @router.post(
        "/v1/chat/completions",
        response_model=None,
        summary="Answer a conversation",
        **documented(ChatCompletion, "ChatCompletionRequest", streams=True),
    )
    async def chat(request: Request) -> Response:
        caller = caller_of(request.scope)
        wire = await context.bodies.read(request, ChatCompletionRequest, caller=caller)
        record = record_of(request.scope)
        terms = terms_of(request.scope, record.client_key, bool(wire.stream))

        async def prepare() -> Job:
            model = enter(wire, 1, record, terms)
            prompt = await context.tokenizer.chat(model, wire.messages, caller=caller)
            return job(wire, [prompt], model, record.request_id)

        return Generation(context.service, settings, record, terms, prepare)

    @router.post(
        "/v1/completions",
        response_model=None,
        summary="Continue a text",
        **documented(Completion, "CompletionRequest", streams=True),
    )
    async def complete(request: Request) -> Response:
        caller = caller_of(request.scope)
        wire = await context.bodies.read(request, CompletionRequest, caller=caller)
        record = record_of(request.scope)
        terms = terms_of(request.scope, record.client_key, bool(wire.stream))

        async def prepare() -> Job:
            model = enter(wire, len(wire.prompt), record, terms)
            prompts = [
                await _tokens(prompt, index, len(wire.prompt), model, caller)
                for index, prompt in enumerate(wire.prompt)
            ]
            echo = await _echo(wire, model, caller) if wire.echo else ()
            return job(wire, prompts, model, record.request_id, echo)

        return Generation(context.service, settings, record, terms, prepare)

    def enter(wire: AnyGeneration, num_prompts: int, record: RequestRecord, terms: Terms) -> ServedModel:
        """Everything that can be refused without the tokens of the prompt, which cost time."""
        check_settings(wire, num_prompts, settings)
        model = context.model(wire.model)
        record.model, record.streamed = model.id, bool(wire.stream)
        check_model(wire, model, settings)
        context.service.check_open(model, num_prompts * (wire.n or 1), wire.priority or 0, terms)
        return model

    def job(
        wire: AnyGeneration,
        prompts: list[tuple[int, ...]],
        model: ServedModel,
        request_id: str,
        echo: tuple[str, ...] = (),
    ) -> Job:
        check_scores(wire, prompts, settings)
        return _job(wire, prompts, model, request_id, echo)

    async def _tokens(
        prompt: Prompt, index: int, count: int, model: ServedModel, caller: str
    ) -> tuple[int, ...]:
        param = "prompt" if count == 1 else f"prompt[{index}]"
        if isinstance(prompt, str):
            return await context.tokenizer.text(model, prompt, param=param, caller=caller)
        check_token_ids(prompt, model, param)
        return prompt

    async def _echo(wire: CompletionRequest, model: ServedModel, caller: str) -> tuple[str, ...]:
        """One text per choice; token ids are shown as text."""
        texts = [
            prompt
            if isinstance(prompt, str)
            else await context.tokenizer.detokenize(model, prompt, caller=caller)
            for prompt in wire.prompt
        ]
        return tuple(text for text in texts for _ in range(wire.n or 1))

    return router


def _job(
    wire: AnyGeneration,
    prompts: list[tuple[int, ...]],
    model: ServedModel,
    request_id: str,
    echo: tuple[str, ...] = (),
) -> Job:
    is_chat = isinstance(wire, ChatCompletionRequest)
    response_id = new_response_id("chatcmpl" if is_chat else "cmpl")
    # A client may send the same x-request-id twice; the engine's ids must differ.
    unique = f"{request_id}.{response_id[-8:]}"
    return Job(
        model=model,
        requests=engine_requests(wire, prompts, model, unique),
        response_id=response_id,
        created=now(),
        is_chat=is_chat,
        stream=bool(wire.stream),
        include_usage=wire.include_usage,
        num_logprobs=wire.num_logprobs,
        num_per_prompt=wire.n or 1,
        echo=echo,
        num_prompt_logprobs=-1 if wire.prompt_logprobs is None else wire.prompt_logprobs,
    )
