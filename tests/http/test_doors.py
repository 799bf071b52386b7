"""A door is a folder and a line in the list: here it is a few functions, and the list is longer by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import aiohttp
import orjson
import pytest
from fake_service import FakeService
from fastapi import APIRouter
from live_server import LiveServer
from pydantic import Field
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from rllm.api.answer.choice import Choice, Delta
from rllm.api.answer.job import Job
from rllm.api.answer.parts import Text
from rllm.api.answer.request import Request
from rllm.api.app import create_app
from rllm.api.doors.documented import AnswerModel, documented
from rllm.api.doors.door import Context, Door
from rllm.api.doors.every import DOORS
from rllm.api.fields.types import Integer
from rllm.api.fields.wire import WireModel
from rllm.api.http.errors import ErrorAnswer
from rllm.api.settings import ApiKey, ApiSettings
from rllm.api.text.messages import Chat, Message

KEY = {"authorization": "Bearer k"}


class SummaryRequest(WireModel):
    text: str
    sentences: Annotated[int, Field(ge=1, le=10), Integer] | None = None


class Summary(AnswerModel):
    summary: str


def to_request(wire: SummaryRequest) -> Request:
    order = f"Summarize in {wire.sentences or 3} sentences: {wire.text}"
    chat = Chat(messages=[Message(role="user", text=order)])
    return Request(prompts=chat, id_prefix="summary", prompts_name="text", max_tokens=9)


class SummaryWriter:
    """This door does not stream."""

    def __init__(self, job: Job, choices: Sequence[Choice]) -> None:
        pass

    def opening(self, index: int) -> bytes:
        return b""

    def progress(self, choice: Choice) -> bytes:
        return b""

    def delta(self, choice: Choice, delta: Delta) -> bytes:
        return b""

    def closing(self) -> bytes:
        return b""

    def error(self, answer: ErrorAnswer) -> bytes:
        return answer.body()

    def whole(self, deltas: Sequence[Delta]) -> bytes:
        text = "".join(part.text for part in deltas[0].parts if isinstance(part, Text))
        return orjson.dumps({"summary": text})


def make_router(context: Context) -> APIRouter:
    router = APIRouter(tags=["summaries"])

    @router.post("/v1/summaries", response_model=None, **documented(Summary, "SummaryRequest"))
    async def summarize(request: HttpRequest) -> Response:
        return context.answers.to(to_request(await context.read(request, SummaryRequest)), SummaryWriter)

    return router


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/summaries", {"text": "x"}, 200, None),
        ("//summaries/", {"text": "x", "sentences": 2.0, "unknown": None}, 200, None),
        ("/v1/summaries", {"text": "x", "sentences": 11}, 400, "sentences"),
        ("/v1/summaries", {"text": "x", "words": 11}, 400, "words"),
        ("/v1/summaries", {"text": "x" * 100_000}, 400, "text"),
    ],
)
async def test_a_new_door_needs_nothing_of_the_others(
    http: aiohttp.ClientSession, path: str, body: dict[str, Any], status: int, param: str | None
) -> None:
    """Paths, keys, bodies, errors and the document know it, because they know no door."""
    door = Door(make_router, (SummaryRequest,))
    settings = ApiSettings(api_keys=(ApiKey.from_secret("caller", "k"),))
    app = create_app(FakeService(), settings, render_metrics=None, doors=(*DOORS, door))
    with LiveServer(app) as server:
        async with http.post(f"{server.url}{path}", json=body) as response:
            assert response.status == 401
        async with http.post(f"{server.url}{path}", json=body, headers=KEY) as response:
            answer = await response.json()
            assert response.status == status, answer
        async with http.get(f"{server.url}/openapi.json", headers=KEY) as response:
            document = await response.json()
    assert answer["error"]["param"] == param if param else answer["summary"]
    assert "/v1/summaries" in document["paths"]
    assert document["components"]["schemas"]["SummaryRequest"]["properties"].keys() == {"text", "sentences"}
