"""Tools and thoughts over HTTP: what goes into the prompt, and how calls come out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from fake_service import FakeService, Script
from http_api import Api, StartApi, events

from rllm.api.doors.openai_chat.answers import ChatCompletion

TEMPLATES = Path(__file__).parents[1] / "formats" / "templates"
QUESTION = {"role": "user", "content": "Weather?"}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Now.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
ASK: dict[str, Any] = {"model": "fake", "messages": [QUESTION], "tools": [TOOL], "max_tokens": 400}
CONTEXT = 16_384
"""Tokens, of a byte each."""


@pytest.fixture
def api(start_api: StartApi) -> Api:
    return start_api(None, FakeService(context=CONTEXT))


def with_template(start_api: StartApi, name: str) -> Api:
    template = (TEMPLATES / f"{name}.jinja").read_text()
    return start_api(None, FakeService(template=template, context=CONTEXT))


def says(api: Api, text: str) -> None:
    api.service.script = Script(text=text, stop_after=len(text.encode()))


async def ask(http: aiohttp.ClientSession, api: Api, **fields: Any) -> dict[str, Any]:
    async with http.post(f"{api.url}/v1/chat/completions", json={**ASK, **fields}) as response:
        answer = await response.json()
        assert response.status == 200, answer
    ChatCompletion.model_validate(answer, strict=True)
    return answer["choices"][0]


async def refusal(http: aiohttp.ClientSession, api: Api, **fields: Any) -> tuple[str, str]:
    async with http.post(f"{api.url}/v1/chat/completions", json={**ASK, **fields}) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    return error["param"], error["message"]


async def test_a_call_comes_as_one(api: Api, http: aiohttp.ClientSession) -> None:
    says(api, f"I look.\n\n{CALL}")
    choice = await ask(http, api)
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "I look."
    [call] = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "get_weather", "arguments": '{"city": "Rome"}'}
    assert call["id"].startswith("call_")


async def test_an_answer_of_calls_alone_has_no_content(api: Api, http: aiohttp.ClientSession) -> None:
    says(api, f"{CALL}\n{CALL}")
    message = (await ask(http, api))["message"]
    assert (message["content"], len(message["tool_calls"])) == (None, 2)
    assert len({call["id"] for call in message["tool_calls"]}) == 2


async def test_a_stream_has_the_calls_in_deltas(api: Api, http: aiohttp.ClientSession) -> None:
    says(api, f"I look.\n{CALL}")
    async with http.post(f"{api.url}/v1/chat/completions", json={**ASK, "stream": True}) as response:
        *chunks, done = await events(response)
    assert done == "[DONE]"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content") or "" for delta in deltas) == "I look."
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert calls[0]["function"] == {"name": "get_weather", "arguments": ""}
    assert "".join(call["function"]["arguments"] for call in calls) == '{"city": "Rome"}'
    assert {call["index"] for call in calls} == {0}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_malformed_call_is_text(api: Api, http: aiohttp.ClientSession, stream: bool) -> None:
    text = CALL.replace('"Rome"', "Rome")
    says(api, text)
    if not stream:
        choice = await ask(http, api)
        assert (choice["message"]["content"], choice["finish_reason"]) == (text, "stop")
        assert "tool_calls" not in choice["message"]
        return
    async with http.post(f"{api.url}/v1/chat/completions", json={**ASK, "stream": True}) as response:
        *chunks, _ = await events(response)
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == text
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("fields", [{"tools": None}, {"tools": []}, {"tool_choice": "none"}])
async def test_without_tools_a_call_is_text(
    api: Api, http: aiohttp.ClientSession, fields: dict[str, Any]
) -> None:
    says(api, CALL)
    choice = await ask(http, api, **fields)
    assert (choice["message"]["content"], choice["finish_reason"]) == (CALL, "stop")


async def test_only_what_is_allowed_may_be_called(api: Api, http: aiohttp.ClientSession) -> None:
    other = {"type": "function", "function": {"name": "other"}}
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [other]}}
    says(api, CALL)
    answer = await ask(http, api, tools=[TOOL, other], tool_choice=choice)
    assert answer["message"]["content"] == CALL


async def test_one_call_where_several_are_not_wanted(api: Api, http: aiohttp.ClientSession) -> None:
    says(api, f"{CALL}\n{CALL}")
    message = (await ask(http, api, parallel_tool_calls=False))["message"]
    assert len(message["tool_calls"]) == 1
    assert CALL in message["content"]


async def test_the_older_fields(api: Api, http: aiohttp.ClientSession) -> None:
    says(api, CALL)
    messages = [
        QUESTION,
        {"role": "assistant", "content": None, "function_call": TOOL_CALL["function"]},
        {"role": "function", "name": "get_weather", "content": "Sun."},
    ]
    choice = await ask(
        http, api, tools=None, functions=[TOOL["function"]], function_call="auto", messages=messages
    )
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "get_weather"


TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
}


async def test_the_prompt_has_tools_calls_and_results(
    start_api: StartApi, http: aiohttp.ClientSession
) -> None:
    api = with_template(start_api, "Qwen-Qwen3-0.6B")
    messages = [
        QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Sun."},
    ]
    body = {**ASK, "messages": messages}
    async with http.post(f"{api.url}/apply-template", json=body) as response:
        prompt = (await response.json())["prompt"]
    assert json.dumps(TOOL) in prompt
    assert CALL in prompt
    assert "<tool_response>\nSun.\n</tool_response>" in prompt


async def test_thoughts_come_beside_the_text(start_api: StartApi, http: aiohttp.ClientSession) -> None:
    api = with_template(start_api, "Qwen-Qwen3-0.6B")
    says(api, f"<think>\nHm.\n</think>\n\n{CALL}")
    message = (await ask(http, api))["message"]
    assert message["reasoning"] == message["reasoning_content"] == "Hm."
    assert message["content"] is None
    assert len(message["tool_calls"]) == 1
    says(api, "<think>\nHm.\n</think>\n\nYes.")
    message = (await ask(http, api, tools=None))["message"]
    assert (message["reasoning"], message["content"]) == ("Hm.", "Yes.")
    message = (await ask(http, api, include_reasoning=False))["message"]
    assert (message.get("reasoning"), message["content"]) == (None, "Yes.")
    async with http.post(f"{api.url}/v1/chat/completions", json={**ASK, "stream": True}) as response:
        *chunks, _ = await events(response)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("reasoning", "") for delta in deltas) == "Hm."
    assert "".join(delta.get("content") or "" for delta in deltas) == "Yes."


async def test_tokens_of_thoughts_are_counted(start_api: StartApi, http: aiohttp.ClientSession) -> None:
    api = with_template(start_api, "own/invoke-tags")
    says(api, "Hm.\n</think>\n\nYes.")
    async with http.post(f"{api.url}/v1/chat/completions", json={**ASK, "tools": None}) as response:
        answer = await response.json()
    assert answer["choices"][0]["message"]["reasoning"] == "Hm."
    tokens = answer["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert tokens == len("Hm.\n</think>")  # a byte is a token here


async def test_effort_reaches_the_template(start_api: StartApi, http: aiohttp.ClientSession) -> None:
    api = with_template(start_api, "Qwen-Qwen3-0.6B")
    body = {**ASK, "tools": None, "reasoning_effort": "none"}
    async with http.post(f"{api.url}/apply-template", json=body) as response:
        assert (await response.json())["prompt"].endswith("<think>\n\n</think>\n\n")
    body["reasoning_effort"] = "high"
    async with http.post(f"{api.url}/apply-template", json=body) as response:
        assert "<think>" not in (await response.json())["prompt"]


async def test_effort_is_refused_where_nothing_comes_of_it(api: Api, http: aiohttp.ClientSession) -> None:
    param, _ = await refusal(http, api, reasoning_effort="high")
    assert param == "reasoning_effort"
    says(api, "Yes.")
    assert (await ask(http, api, reasoning_effort="none"))["message"]["content"] == "Yes."


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"tool_choice": "required"}, "tool_choice", "does not constrain calls yet"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
            "tool_choice",
            "does not constrain calls yet",
        ),
        ({"tool_choice": "sometimes"}, "tool_choice", "must be 'auto', 'none'"),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "name": "x"}]},
                }
            },
            "tool_choice",
            "not in tools",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
            "tools[0].function.strict",
            "does not constrain calls yet",
        ),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "match"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type", "'function'"),
        ({"tools": [TOOL, TOOL]}, "tools", "two functions"),
        ({"functions": [{"name": "f"}]}, "functions", "older form"),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{"}}],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
            "JSON object",
        ),
    ],
)
async def test_what_cannot_be_kept_is_refused_by_name(
    api: Api, http: aiohttp.ClientSession, fields: dict[str, Any], param: str, words: str
) -> None:
    found, message = await refusal(http, api, **fields)
    assert (found, words in message) == (param, True), message


async def test_an_answer_that_must_match_has_no_calls_and_no_thoughts(
    start_api: StartApi, http: aiohttp.ClientSession
) -> None:
    api = with_template(start_api, "own/invoke-tags")
    wanted = {"response_format": {"type": "json_object"}}
    assert (await refusal(http, api, **wanted))[0] == "tools"
    says(api, "{}")
    assert (await ask(http, api, tools=None, **wanted))["message"]["content"] == "{}"
