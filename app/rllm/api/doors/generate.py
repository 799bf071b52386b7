"""POST /v1/chat/completions and /v1/completions."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rllm.api.answer.convert import (
    AnyGeneration,
    Job,
    check_model,
    check_scores,
    check_settings,
    engine_requests,
)
from rllm.api.answer.generation import Generation
from rllm.api.answer.prompting import echo_of, prompts_of
from rllm.api.doors.context import Context, new_response_id, now
from rllm.api.doors.responses import ChatCompletion, Completion, documented
from rllm.api.fields.protocol import ChatCompletionRequest, CompletionRequest
from rllm.api.http.middleware import caller_of, record_of
from rllm.api.http.records import RequestRecord
from rllm.api.http.terms import terms_of
from rllm.api.text.token_options import TokenOptions
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
            return await job(wire, model, record.request_id, caller)

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
            return await job(wire, model, record.request_id, caller)

        return Generation(context.service, settings, record, terms, prepare)

    def enter(wire: AnyGeneration, num_prompts: int, record: RequestRecord, terms: Terms) -> ServedModel:
        """Everything that can be refused without the tokens of the prompt, which cost time."""
        check_settings(wire, num_prompts, settings)
        model = context.model(wire.model)
        record.model, record.streamed = model.id, bool(wire.stream)
        check_model(wire, model, settings)
        context.service.check_open(model, num_prompts * (wire.n or 1), wire.priority or 0, terms)
        return model

    async def job(wire: AnyGeneration, model: ServedModel, request_id: str, caller: str) -> Job:
        tokenizer = context.tokenizer
        prompts = await prompts_of(wire, model, tokenizer, settings, caller)
        check_scores(wire, prompts, settings)
        echo: tuple[str, ...] = ()
        if isinstance(wire, CompletionRequest) and wire.echo:
            echo = await echo_of(wire, prompts, model, tokenizer, caller)
        elif isinstance(wire, ChatCompletionRequest) and wire.echoed:
            echo = (wire.echoed,) * (wire.n or 1)
        options = await tokenizer.options(model, wire, caller=caller)
        return _job(wire, prompts, model, request_id, options, echo)

    return router


def _job(
    wire: AnyGeneration,
    prompts: list[tuple[int, ...]],
    model: ServedModel,
    request_id: str,
    options: TokenOptions,
    echo: tuple[str, ...],
) -> Job:
    is_chat = isinstance(wire, ChatCompletionRequest)
    unique = new_response_id("chatcmpl" if is_chat else "cmpl")
    response_id = f"{unique.partition('-')[0]}-{wire.request_id}" if wire.request_id else unique
    # A client may send the same ids twice; the engine's must differ.
    prefix = f"{request_id}.{unique[-8:]}"
    return Job(
        model=model,
        requests=engine_requests(wire, prompts, model, prefix, options),
        response_id=response_id,
        created=now(),
        is_chat=is_chat,
        stream=bool(wire.stream),
        include_usage=wire.include_usage,
        num_logprobs=wire.num_logprobs,
        num_per_prompt=wire.n or 1,
        echo=echo,
        num_prompt_logprobs=-1 if wire.prompt_logprobs is None else wire.prompt_logprobs,
        continuous_usage=wire.continuous_usage,
        timings_per_token=bool(wire.timings_per_token),
        returns_progress=bool(wire.return_progress),
        returns_ids=bool(wire.return_token_ids),
        names_ids=bool(wire.return_tokens_as_token_ids),
        shows_special=wire.skip_special_tokens is False,
        stream_interval=wire.stream_interval or 1,
    )
