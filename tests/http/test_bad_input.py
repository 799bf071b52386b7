"""Every bad request gets a 4xx in OpenAI's shape that names the field, and the next good one works."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from http_api import CHAT, Api, StartApi

from rllm.api.doors.documented import Error
from rllm.api.settings import ApiSettings

USER = CHAT["messages"]


async def refused(response: aiohttp.ClientResponse, status: int = 400) -> Any:
    body = await response.json(content_type="application/json")
    assert response.status == status, body
    assert response.headers["x-request-id"]
    assert response.headers["x-should-retry"] in ("true", "false")
    return Error.model_validate(body, strict=True).error


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": None}, "messages", "Missing"),
        ({"messages": "hello"}, "messages", "array"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "Missing"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "5"),
        ({"messages": [{"role": "a king", "content": "x"}]}, "messages[0].role", "king"),
        ({"messages": [{"role": "user", "content": "x", "name": 5}]}, "messages[0].name", "string"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{}]}]},
            "messages[0].tool_calls[0].id",
            "required",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content",
            "messages[0].content[0].type",
        ),
        ({"max_tokens": -2}, "max_tokens", "-2"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"max_tokens": "5"}, "max_tokens", "integer"),
        ({"max_tokens": True}, "max_tokens", "true"),
        ({"max_tokens": 1.5}, "max_tokens", "1.5"),
        ({"max_tokens": 10**30}, "max_tokens", "at most"),
        ({"min_tokens": 20}, "min_tokens", "20"),
        ({"temperature": 2.1}, "temperature", "2.1"),
        ({"temperature": "hot"}, "temperature", "hot"),
        ({"top_p": -0.1}, "top_p", "-0.1"),
        ({"repetition_penalty": 0}, "repetition_penalty", "0"),
        ({"n": 17}, "n", "16"),
        ({"n": 0}, "n", "0"),
        ({"stop": ["x"] * 10_000}, "stop", "10000"),
        ({"stop": ["y" * 300]}, "stop", "300"),
        ({"stop": ""}, "stop", "empty"),
        ({"stop": [1]}, "stop", "1"),
        ({"logit_bias": {"260": 1}}, "logit_bias", "259"),
        ({"logit_bias": {"": 1}}, "logit_bias", "1 to 256"),
        ({"logit_bias": [[1]]}, "logit_bias", "pair"),
        ({"logit_bias": [[-1, 1]]}, "logit_bias", "-1"),
        ({"logit_bias": {"5": True}}, "logit_bias", "true"),
        ({"stop_token_ids": [260]}, "stop_token_ids", "259"),
        ({"allowed_token_ids": []}, "allowed_token_ids", "at least 1"),
        ({"allowed_token_ids": [65], "logit_bias": {"A": False}}, "allowed_token_ids", "no token"),
        ({"allowed_token_ids": [257], "ignore_eos": True}, "allowed_token_ids", "no token"),
        ({"bad_words": [""]}, "bad_words[0]", "at least 1"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "0"),
        ({"stream_interval": 0}, "stream_interval", "at least 1"),
        ({"request_id": "a b"}, "request_id", "match"),
        ({"chat_template": "x"}, "chat_template", "operator"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs.chat_template", "not"),
        ({"documents": [{"text": "x"}]}, "documents", "no use"),
        (
            {"continue_final_message": True, "add_generation_prompt": True},
            "continue_final_message",
            "another",
        ),
        ({"logit_bias": {"5": 101}}, "logit_bias", "101"),
        ({"logit_bias": {str(i): 1 for i in range(2000)}}, "logit_bias", "2000"),
        ({"seed": 2**64}, "seed", "at most"),
        ({"stream": "yes"}, "stream", "yes"),
        ({"stream_options": {"usage": True}}, "stream_options.usage", "Unknown"),
        ({"top_logprobs": 21}, "top_logprobs", "20"),
        ({"top_logprobs": 2, "logprobs": False}, "top_logprobs", "logprobs"),
        ({"model": 5}, "model", "string"),
        ({"max_new_tokens": 1}, "max_new_tokens", "max_tokens"),
        ({"frobnicate": 1}, "frobnicate", "Unknown"),
        ({"tools": [{"type": "function"}]}, "tools[0].function", "required"),
        ({"response_format": {"type": "xml"}}, "response_format", "json_object"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream is true"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs"),
        ({"modalities": ["audio"]}, "modalities", "text"),
        ({"cache_salt": "x" * 200}, "cache_salt", "128"),
        ({"cache_salt": ""}, "cache_salt", "at least 1"),
        ({"priority": 5000}, "priority", "1000"),
        ({"priority": -1}, "priority", "at least 0"),
    ],
)
async def test_a_bad_field_is_named(
    shared_api: Api, http: aiohttp.ClientSession, change: dict[str, Any], param: str, said: str
) -> None:
    async with http.post(f"{shared_api.url}/v1/chat/completions", json={**CHAT, **change}) as response:
        error = await refused(response)
    assert error.param == param
    assert said in error.message
    assert shared_api.service.submitted.empty()


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [260]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [[1], [2, 2**40]]}, "prompt[1]"),
        ({"prompt": [1, [2]]}, "prompt"),
        ({"prompt": [1, None]}, "prompt"),
        ({"prompt": ["x"] * 65}, "prompt"),
        ({"prompt": ["x"] * 60, "n": 3}, "n"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"max_tokens": -2}, "max_tokens"),
        ({"logprobs": True}, "logprobs"),
        ({"messages": USER}, "messages"),
    ],
)
async def test_a_bad_field_of_a_completion_is_named(
    shared_api: Api, http: aiohttp.ClientSession, change: dict[str, Any], param: str
) -> None:
    async with http.post(f"{shared_api.url}/v1/completions", json={"prompt": "x", **change}) as response:
        assert (await refused(response)).param == param


async def test_values_that_ask_for_nothing_are_accepted_together(
    api: Api, http: aiohttp.ClientSession
) -> None:
    nothing = {
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "store": False,
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "parallel_tool_calls": True,
        "logit_bias": None,
        "stop": None,
        "audio": None,
        "max_tokens": 3.0,
        "stream_options": None,
    }
    async with http.post(f"{api.url}/v1/chat/completions", json={**CHAT, **nothing}) as response:
        assert response.status == 200, await response.text()


@pytest.mark.parametrize("prompt", ["x" * 600, "x" * 100_000])
async def test_a_prompt_beyond_the_context_is_refused(
    shared_api: Api, http: aiohttp.ClientSession, prompt: str
) -> None:
    """The second could never fit and is not even tokenized."""
    messages = [{"role": "user", "content": prompt}]
    async with http.post(f"{shared_api.url}/v1/chat/completions", json={"messages": messages}) as response:
        error = await refused(response)
    assert (error.code, error.param) == ("context_length_exceeded", "messages")
    assert "512" in error.message


async def test_the_record_of_a_refusal_names_the_field(api: Api, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{api.url}/v1/chat/completions", json={**CHAT, "temprature": 1}) as response:
        assert response.status == 400
    record = api.record()
    assert (record.error_code, record.error_param) == ("unknown_parameter", "temprature")


async def test_an_unknown_model_is_not_found(shared_api: Api, http: aiohttp.ClientSession) -> None:
    async with http.post(
        f"{shared_api.url}/v1/chat/completions", json={**CHAT, "model": "gpt-9"}
    ) as response:
        error = await refused(response, 404)
    assert (error.code, error.param) == ("model_not_found", "model")
    assert "'fake'" in error.message
    async with http.get(f"{shared_api.url}/v1/models/gpt/9") as response:
        await refused(response, 404)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"messages": [', "line 1 column 15"),
        (b"", "empty"),
        (b"[1]", "object"),
        (b'{"prompt": "\xff\xfe"}', "UTF-8"),
        (b'{"prompt": "\\ud800"}', "surrogate"),
        (b'{"prompt": "x", "temperature": NaN}', "column 32"),
        (b'{"prompt": "x", "temperature": 1e999}', "infinity"),
        (b'{"prompt": "x"} trailing', "column 17"),
        (b"[" * 10_000, "depth"),
    ],
)
async def test_broken_json_is_refused_with_its_place(
    shared_api: Api, http: aiohttp.ClientSession, body: bytes, said: str
) -> None:
    headers = {"content-type": "application/json"}
    async with http.post(f"{shared_api.url}/v1/completions", data=body, headers=headers) as response:
        error = await refused(response)
    assert said in error.message


async def test_a_nul_character_is_text_like_any_other(api: Api, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{api.url}/v1/completions", json={"prompt": "a\x00b"}) as response:
        assert response.status == 200
    assert api.service.submitted.get_nowait().prompt == (256, 97, 0, 98)


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", None])
async def test_another_content_type_is_refused_with_a_hint(
    shared_api: Api, http: aiohttp.ClientSession, kind: str | None
) -> None:
    """Also because browsers may post these types from any page without asking first."""
    headers = {"content-type": kind} if kind else {}
    skip = None if kind else ["content-type"]
    data = json.dumps(CHAT).encode()
    url = f"{shared_api.url}/v1/chat/completions"
    async with http.post(url, data=data, headers=headers, skip_auto_headers=skip) as response:
        error = await refused(response, 415)
    assert "application/json" in error.message


async def test_a_body_of_50_mb_is_refused_by_its_declared_length(api: Api) -> None:
    """The answer comes before the body: nothing of it needs to be sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 52428800\r\n\r\n"
    )
    status = await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert b" 413 " in status


async def test_a_body_of_50_mb_in_chunks_is_refused_where_the_limit_is(
    api: Api, http: aiohttp.ClientSession
) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b" " * 1024 * 1024

    headers = {"content-type": "application/json"}
    async with http.post(f"{api.url}/v1/completions", data=body(), headers=headers) as response:
        error = await refused(response, 413)
    assert str(2 * 1024 * 1024) in error.message
    async with http.post(f"{api.url}/v1/completions", json={"prompt": "x"}) as response:
        assert response.status == 200


async def test_a_body_that_does_not_arrive_times_out(start_api: StartApi) -> None:
    api = start_api(ApiSettings(body_timeout_s=0.2))
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(
        b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 100\r\n\r\n{"
    )
    status = await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert b" 408 " in status


async def test_routes_and_methods_that_do_not_exist(api: Api, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{api.url}/v1/nothing") as response:
        assert "/v1/nothing" in (await refused(response, 404)).message
    async with http.delete(f"{api.url}/v1/completions") as response:
        await refused(response, 405)
        assert response.headers["allow"] == "POST"
    routes = [api.record().route for _ in range(2)]
    assert routes == ["unmatched", "/v1/completions"]


async def test_a_bug_shows_no_internals(api: Api, http: aiohttp.ClientSession) -> None:
    api.service.bug = RuntimeError("secret of the house")
    async with http.post(f"{api.url}/v1/chat/completions", json=CHAT) as response:
        error = await refused(response, 500)
    assert "secret" not in error.message
    assert (error.code, api.record().error_code) == ("internal_error", "internal_error")
