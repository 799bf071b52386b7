"""What would be asked of the model, without asking it: the prompt as text, as tokens, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request as HttpRequest

from rllm.api.answer.job import engine_requests, new_response_id
from rllm.api.answer.request import Request
from rllm.api.doors.documented import documented
from rllm.api.doors.door import Context
from rllm.api.doors.openai_chat.wire import ChatCompletionRequest, to_chat
from rllm.api.doors.openai_chat.wire import to_request as to_chat_request
from rllm.api.doors.openai_completions.wire import CompletionRequest, to_request
from rllm.api.doors.tokens.answers import Counted, Prompted, Rendered
from rllm.api.http.middleware import caller_of
from rllm.engine.types import EngineRequest

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "seed")
_PENALTIES = ("repetition_penalty", "presence_penalty", "frequency_penalty")


def add_rendering(router: APIRouter, context: Context) -> None:
    """Everything is refused here that the same body would be refused for where it is answered."""
    preparer = context.answers.preparer

    @router.post(
        "/apply-template",
        response_model=None,
        summary="A conversation as the text of its prompt (llama-server)",
        **documented(Prompted, "ChatCompletionRequest"),
    )
    async def apply_template(request: HttpRequest) -> dict[str, str]:
        wire = await context.read(request, ChatCompletionRequest)
        model = preparer.check(to_chat_request(wire))
        return {"prompt": await context.tokenizer.chat_text(model, to_chat(wire.messages, wire, wire))}

    @router.post(
        "/v1/chat/completions/input_tokens",
        response_model=None,
        summary="How many tokens a conversation has (llama-server)",
        **documented(Counted, "ChatCompletionRequest"),
    )
    async def input_tokens(request: HttpRequest) -> dict[str, int]:
        asked = to_chat_request(await context.read(request, ChatCompletionRequest))
        (prompt,) = await preparer.prompts(asked, preparer.check(asked), caller_of(request.scope))
        return {"input_tokens": len(prompt)}

    @router.post(
        "/v1/chat/completions/render",
        response_model=None,
        summary="A conversation as tokens, with what the model would be asked (vLLM)",
        **documented(Rendered, "ChatCompletionRequest"),
    )
    async def render_chat(request: HttpRequest) -> dict[str, Any]:
        asked = to_chat_request(await context.read(request, ChatCompletionRequest))
        return (await render(asked, caller_of(request.scope)))[0]

    @router.post(
        "/v1/completions/render",
        response_model=None,
        summary="Prompts as tokens, with what the model would be asked (vLLM)",
        **documented(list[Rendered], "CompletionRequest"),
    )
    async def render_completion(request: HttpRequest) -> Sequence[dict[str, Any]]:
        asked = to_request(await context.read(request, CompletionRequest))
        return await render(asked, caller_of(request.scope))

    async def render(asked: Request, caller: str) -> list[dict[str, Any]]:
        model = preparer.check(asked)
        options = await preparer.options(asked, model, caller)
        prompts = await preparer.prompts(asked, model, caller)
        requests = engine_requests(asked, prompts, model, "", options)
        return [_rendered(asked, first, model.id) for first in requests[:: asked.n]]


def _rendered(asked: Request, first: EngineRequest, model: str) -> dict[str, Any]:
    """``first``: of the choices of one prompt."""
    return {
        "request_id": new_response_id(asked.id_prefix),
        "model": model,
        "token_ids": first.prompt,
        "stream": asked.stream,
        "sampling_params": {
            "n": asked.n,
            "max_tokens": first.max_tokens,
            "min_tokens": first.min_tokens,
            "ignore_eos": first.ignore_eos,
            "stop": first.stop,
            **{name: getattr(first.sampling, name) for name in (*_SAMPLING, *_PENALTIES)},
        },
    }
