"""POST /v1/chat/completions."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rllm.api.doors.documented import documented
from rllm.api.doors.door import Context, Door
from rllm.api.doors.openai.wire import StreamOptions
from rllm.api.doors.openai_chat.answers import ChatCompletion
from rllm.api.doors.openai_chat.wire import ChatCompletionRequest, ChatMessage, to_request
from rllm.api.doors.openai_chat.writer import from_parts


def make_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["generation"])

    @router.post(
        "/v1/chat/completions",
        response_model=None,
        summary="Answer a conversation",
        **documented(ChatCompletion, "ChatCompletionRequest", streams=True),
    )
    async def chat(request: Request) -> Response:
        wire = await context.read(request, ChatCompletionRequest)
        return context.answers.to(to_request(wire), from_parts(wire))

    return router


OPENAI_CHAT = Door(make_router, (ChatCompletionRequest, ChatMessage, StreamOptions))
