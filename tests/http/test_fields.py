"""The table of known fields is what the server does: every row, every value that asks for nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fake_service import FakeService
from http_api import CHAT, Api, StartApi
from openai.types.chat import ChatCompletionMessage

from rllm.api.doors.openai.wire import StreamOptions
from rllm.api.doors.openai_chat.wire import ChatCompletionRequest, ChatMessage
from rllm.api.doors.openai_completions.wire import CompletionRequest
from rllm.api.fields.field_page import page
from rllm.api.fields.field_table import TABLE
from rllm.api.fields.known_fields import KnownField, Place, SameAs, Use

PROMPT: dict[str, Any] = {"prompt": "x", "max_tokens": 2}
ODD = {"deeply": ["odd", 1.5, True]}
PLACES = (Place.CHAT, Place.COMPLETION, Place.MESSAGE, Place.PART, Place.STREAM_OPTIONS)


def request_with(place: Place, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """(path, body) of a request that has the fields there."""
    part = {"type": "text", "text": "a"}
    message = {"role": "assistant", "content": "a"}
    match place:
        case Place.COMPLETION:
            return "/v1/completions", {**PROMPT, **fields}
        case Place.CHAT:
            return "/v1/chat/completions", {**CHAT, **fields}
        case Place.MESSAGE:
            return "/v1/chat/completions", {**CHAT, "messages": [{**message, **fields}]}
        case Place.PART:
            return "/v1/chat/completions", {
                **CHAT,
                "messages": [{**message, "content": [{**part, **fields}]}],
            }
        case _:
            return "/v1/chat/completions", {**CHAT, "stream": True, "stream_options": fields}


async def ask(http: aiohttp.ClientSession, api: Api, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    async with http.post(f"{api.url}{path}", json=body) as response:
        stream = response.content_type == "text/event-stream"
        return response.status, await (response.text() if stream else response.json())


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
async def test_every_field_may_be_null_known_or_not(
    shared_api: Api, http: aiohttp.ClientSession, place: Place
) -> None:
    kept = {"messages", "prompt", "model", "max_tokens", "role", "content", "type", "text", "stream"}
    nothing = dict.fromkeys([*(TABLE.at(place).keys() - kept), "frobnicate", ""])
    status, answer = await ask(http, shared_api, *request_with(place, nothing))
    assert status == 200, answer


CASES = [
    pytest.param(place, row, value, id=f"{place.name}-{row.name}-{value}")
    for place in PLACES
    for row in TABLE.at(place).values()
    for value in ((ODD,) if row.use is Use.NO_EFFECT else row.neutral)
]


@pytest.mark.parametrize(("place", "row", "value"), CASES)
async def test_a_value_that_asks_for_nothing_is_accepted(
    shared_api: Api, http: aiohttp.ClientSession, place: Place, row: KnownField, value: object
) -> None:
    fields = {row.name: value}
    if isinstance(value, SameAs):
        fields = {row.name: 2, value.field: 2}
    status, answer = await ask(http, shared_api, *request_with(place, fields))
    assert status == 200, answer


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
async def test_what_asks_for_more_is_refused_by_name(
    shared_api: Api, http: aiohttp.ClientSession, place: Place
) -> None:
    for row in TABLE.at(place).values():
        if row.use not in (Use.REFUSED, Use.UNKNOWN):
            continue
        status, answer = await ask(http, shared_api, *request_with(place, {row.name: ODD}))
        assert status == 400, (row, answer)
        error = answer["error"]
        assert error["param"].endswith(row.name)
        expected = "unsupported_parameter" if row.use is Use.REFUSED else "unknown_parameter"
        assert error["code"] == expected


@pytest.mark.parametrize(
    ("place", "fields", "param"),
    [
        (Place.CHAT, {"frobnicate": 1}, "frobnicate"),
        (Place.COMPLETION, {"temprature": 1}, "temprature"),
        (Place.MESSAGE, {"frobnicate": 1}, "messages[0].frobnicate"),
        (Place.PART, {"frobnicate": 1}, "messages[0].content[0].frobnicate"),
        (Place.STREAM_OPTIONS, {"frobnicate": 1}, "stream_options.frobnicate"),
        (Place.CHAT, {"store": 1, "grammar": False}, "grammar"),  # false is not ""
        (Place.CHAT, {"use_beam_search": 0}, "use_beam_search"),  # 0 is not false
    ],
)
async def test_a_field_that_nobody_knows_is_named_with_its_path(
    shared_api: Api, http: aiohttp.ClientSession, place: Place, fields: dict[str, Any], param: str
) -> None:
    status, answer = await ask(http, shared_api, *request_with(place, fields))
    assert (status, answer["error"]["param"]) == (400, param)


async def test_other_names_mean_the_same(api: Api, http: aiohttp.ClientSession) -> None:
    status, answer = await ask(
        http, api, "/v1/completions", {"prompt": "x", "n_predict": 3, "repeat_penalty": 1.5}
    )
    assert status == 200, answer
    request = api.service.submitted.get_nowait()
    assert (request.max_tokens, request.sampling.repetition_penalty) == (3, 1.5)
    status, answer = await ask(http, api, "/v1/completions", {"prompt": "x", "n_predict": 3, "max_tokens": 4})
    assert status == 400
    assert answer["error"]["param"] in ("n_predict", "max_tokens")


def test_what_is_honoured_is_what_the_requests_have() -> None:
    for place, model in (
        (Place.CHAT, ChatCompletionRequest),
        (Place.COMPLETION, CompletionRequest),
        (Place.MESSAGE, ChatMessage),
        (Place.STREAM_OPTIONS, StreamOptions),
    ):
        honoured = {row.name for row in TABLE.at(place).values() if row.use is Use.HONOURED}
        assert honoured == model.model_fields.keys()
        assert all(row.other in honoured for row in TABLE.at(place).values() if row.use is Use.RENAMED)


def test_no_field_stands_twice_in_a_place() -> None:
    for place in PLACES:
        assert len(TABLE.at(place)) == sum(place in row.place for row in TABLE.rows)


def test_the_page_in_the_docs_is_made_from_the_table() -> None:
    docs = Path(__file__).parents[2] / "docs" / "fields.md"
    assert docs.read_text() == page(), "python -m rllm.api.fields.field_page > docs/fields.md"


async def test_an_answer_of_openais_client_goes_back_into_the_history(
    api: Api, http: aiohttp.ClientSession
) -> None:
    """``model_dump`` writes every field that the class has, most of them null."""
    answer = ChatCompletionMessage.model_validate(
        {"role": "assistant", "content": "Paris.", "annotations": []}
    )
    history = [*CHAT["messages"], answer.model_dump(), {"role": "user", "content": "And of Spain?"}]
    status, body = await ask(http, api, "/v1/chat/completions", {**CHAT, "messages": history})
    assert status == 200, body


@pytest.mark.parametrize("message", [{"content": None}, {}, {"content": None, "refusal": None}])
async def test_an_assistant_may_have_said_nothing(
    shared_api: Api, http: aiohttp.ClientSession, message: dict[str, Any]
) -> None:
    messages = [*CHAT["messages"], {"role": "assistant", **message}, *CHAT["messages"]]
    status, answer = await ask(http, shared_api, "/v1/chat/completions", {**CHAT, "messages": messages})
    assert status == 200, answer


def asked(api: Api) -> str:
    tokens = api.service.submitted.get_nowait().prompt
    return bytes(token for token in tokens if token < 256).decode()


async def test_a_role_is_whatever_the_template_shows(
    start_api: StartApi, http: aiohttp.ClientSession
) -> None:
    api = start_api(None, FakeService())
    messages = [{"role": "ipython", "content": "3"}]
    status, _ = await ask(http, api, "/v1/chat/completions", {**CHAT, "messages": messages})
    assert status == 200
    assert "ipython\n3" in asked(api)
    strict = start_api(
        None,
        FakeService(template="{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"),
    )
    messages = [*CHAT["messages"], *messages]
    status, answer = await ask(http, strict, "/v1/chat/completions", {**CHAT, "messages": messages})
    assert (status, answer["error"]["param"]) == (400, "messages[1].role")


async def test_reasoning_and_names_reach_templates_that_use_them(
    start_api: StartApi, http: aiohttp.ClientSession
) -> None:
    template = "{% for m in messages %}{{ m.name }}|{{ m.reasoning_content }}|{{ m.reasoning }}|{% endfor %}"
    api = start_api(None, FakeService(template=template))
    message = {
        "role": "assistant",
        "content": "a",
        "name": "Bob",
        "reasoning_content": "why",
        "thinking": "no",
    }
    status, _ = await ask(http, api, "/v1/chat/completions", {**CHAT, "messages": [message]})
    assert status == 200
    assert asked(api) == "Bob|why||"
