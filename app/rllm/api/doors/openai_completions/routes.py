"""POST /v1/completions."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rllm.api.doors.documented import documented
from rllm.api.doors.door import Context, Door
from rllm.api.doors.openai_completions.answers import Completion
from rllm.api.doors.openai_completions.wire import CompletionRequest, to_request
from rllm.api.doors.openai_completions.writer import from_parts


def make_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["generation"])

    @router.post(
        "/v1/completions",
        response_model=None,
        summary="Continue a text",
        **documented(Completion, "CompletionRequest", streams=True),
    )
    async def complete(request: Request) -> Response:
        wire = await context.read(request, CompletionRequest)
        return context.answers.to(to_request(wire), from_parts(wire))

    return router


OPENAI_COMPLETIONS = Door(make_router, (CompletionRequest,))
