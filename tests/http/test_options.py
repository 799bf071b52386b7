"""Options of vLLM and llama-server: what the engine is asked, and what the answer says."""

from __future__ import annotations

import itertools
from typing import Any

import aiohttp
import pytest
from fake_service import ANSWER, FakeService
from http_api import CHAT, Api, StartApi, events

from rllm.api.doors.openai_chat.answers import ChatCompletion
from rllm.api.doors.openai_completions.answers import Completion
from rllm.api.settings import ApiSettings

PROMPT: dict[str, Any] = {"prompt": "ab", "max_tokens": 6}


async def complete(http: aiohttp.ClientSession, api: Api, **body: Any) -> Any:
    async with http.post(f"{api.url}/v1/completions", json={**PROMPT, **body}) as response:
        assert response.status == 200, await response.text()
        return (await events(response))[:-1] if body.get("stream") else await response.json()


async def test_options_reach_the_engine(api: Api, http: aiohttp.ClientSession) -> None:
    await complete(
        http,
        api,
        stop_token_ids=[65, 66],
        include_stop_str_in_output=True,
        skip_special_tokens=False,
        allowed_token_ids=[65, 97],
        bad_words=["x", " yz"],
        logit_bias={"7": 1, "no": -2, "<s>": False},
        repeat_last_n=64,
        cache_prompt=False,
    )
    request = api.service.submitted.get_nowait()
    assert (request.stop_tokens, request.keeps_stop, request.shows_special) == ((65, 66), True, True)
    assert request.salt != request.cache_salt
    sampling = request.sampling
    assert sampling.allowed_tokens == (65, 97)
    assert sampling.bad_words == ((120,), (32, 120), (32, 121, 122), (121, 122))
    minus = float("-inf")
    assert sampling.logit_bias == ((7, 1.0), (110, -2.0), (111, -2.0), (256, minus))
    assert sampling.penalty_last_n == 64
    await complete(http, api, logit_bias=[[7, 1], ["no", False]])
    request = api.service.submitted.get_nowait()
    assert request.sampling.logit_bias == ((7, 1.0), (110, minus), (111, minus))
    assert request.salt == request.cache_salt


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"prompt": ""}, (256,)),
        ({"prompt": "<s>a"}, (256, 97)),
        ({"prompt": "<s>a", "add_special_tokens": True}, (256, 256, 97)),
        ({"prompt": "a", "add_special_tokens": False}, (97,)),
        ({"prompt": "", "add_special_tokens": False}, (256,)),
        ({"prompt": [97, "b<s>", 98]}, (97, 98, 256, 98)),
        ({"prompt": ["a", 98]}, (256, 97, 98)),
        ({"prompt": "abcdef", "truncate_prompt_tokens": 2}, (101, 102)),
        ({"prompt": "abcdef", "truncate_prompt_tokens": 3, "truncation_side": "right"}, (256, 97, 98)),
        ({"prompt": "x" * 1000, "truncate_prompt_tokens": -1, "max_tokens": 4}, (120,) * 508),
    ],
)
async def test_prompts_of_all_kinds(
    api: Api, http: aiohttp.ClientSession, body: dict[str, Any], tokens: tuple[int, ...]
) -> None:
    await complete(http, api, **body)
    assert api.service.submitted.get_nowait().prompt == tokens


async def test_several_prompts_may_be_mixed_ones(api: Api, http: aiohttp.ClientSession) -> None:
    await complete(http, api, prompt=["a", [97, "b"]], echo=True)
    assert [api.service.submitted.get_nowait().prompt for _ in range(2)] == [(256, 97), (97, 98)]


async def test_ids_are_reported(api: Api, http: aiohttp.ClientSession) -> None:
    asked = {"return_token_ids": True, "return_tokens_as_token_ids": True, "logprobs": 1}
    whole = Completion.model_validate(await complete(http, api, **asked), strict=True).choices[0]
    assert whole.token_ids == list(ANSWER[:6].encode())
    assert whole.prompt_token_ids == [256, 97, 98]
    assert whole.logprobs is not None
    assert whole.logprobs.tokens == [f"token_id:{token}" for token in whole.token_ids]
    assert set(whole.logprobs.top_logprobs[0] or ()) == {"token_id:84", "token_id:0"}
    parts = [chunk["choices"][0] for chunk in await complete(http, api, **asked, stream=True)]
    assert [token for part in parts for token in part["token_ids"]] == whole.token_ids
    assert [part.get("prompt_token_ids") for part in parts] == [[256, 97, 98], *[None] * (len(parts) - 1)]
    async with http.post(
        f"{api.url}/v1/chat/completions", json={**CHAT, "return_token_ids": True}
    ) as response:
        chat = ChatCompletion.model_validate(await response.json(), strict=True)
    assert chat.prompt_token_ids is not None
    assert len(chat.prompt_token_ids) == chat.usage.prompt_tokens
    assert chat.choices[0].token_ids == list(ANSWER[:12].encode())


async def test_a_requests_own_id_is_the_answers(api: Api, http: aiohttp.ClientSession) -> None:
    for _ in range(2):
        assert (await complete(http, api, request_id="mine"))["id"] == "cmpl-mine"
    assert len({api.service.submitted.get_nowait().id for _ in range(2)}) == 2


@pytest.mark.parametrize("interval", [2, 4, 100])
async def test_chunks_are_as_large_as_asked_for(api: Api, http: aiohttp.ClientSession, interval: int) -> None:
    chunks = await complete(http, api, max_tokens=12, stream=True, stream_interval=interval)
    texts = [chunk["choices"][0]["text"] for chunk in chunks]
    assert "".join(texts) == ANSWER[:12]
    assert all(len(text) >= interval for text in texts[1:-1])
    assert len(texts) <= 2 + 12 // interval


def said(chunks: list[Any]) -> list[int]:
    """Characters, which are tokens, up to the end of each chunk."""
    return list(itertools.accumulate(len(chunk["choices"][0]["text"]) for chunk in chunks))


async def test_every_chunk_can_have_the_usage_so_far(api: Api, http: aiohttp.ClientSession) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, last = await complete(http, api, stream=True, stream_options=options)
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == said(chunks)
    assert {chunk["usage"]["prompt_tokens"] for chunk in chunks} == {3}
    assert last["usage"] == chunks[-1]["usage"]
    chunks = await complete(http, api, stream=True, stream_options={"continuous_usage_stats": False})
    assert all("usage" not in chunk for chunk in chunks)


async def test_every_chunk_can_have_timings(api: Api, http: aiohttp.ClientSession) -> None:
    chunks = await complete(http, api, stream=True, timings_per_token=True)
    assert [chunk["timings"]["predicted_n"] for chunk in chunks] == said(chunks)
    assert all(value is not None for chunk in chunks for value in chunk["timings"].values())


TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% if think is defined and not think %}(){% endif %}{% endif %}"
    "{% for d in documents or [] %}<{{ d.text }}>{% endfor %}"
)


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        ({}, "[user]a</s>[assistant]b </s>[assistant]"),
        ({"add_generation_prompt": False}, "[user]a</s>[assistant]b </s>"),
        ({"continue_final_message": True}, "[user]a</s>[assistant]b "),
        ({"chat_template_kwargs": {"think": False}}, "[user]a</s>[assistant]b </s>[assistant]()"),
        ({"documents": [{"text": "d</s>"}]}, "[user]a</s>[assistant]b </s>[assistant]<d{</s>}>"),
    ],
)
async def test_what_a_chat_template_is_told(
    start_api: StartApi, http: aiohttp.ClientSession, body: dict[str, Any], prompt: str
) -> None:
    api = start_api(None, FakeService(template=TEMPLATE))
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b "}]
    async with http.post(
        f"{api.url}/v1/chat/completions", json={"messages": messages, "max_tokens": 1, **body}
    ) as response:
        assert response.status == 200, await response.text()
    tokens = api.service.submitted.get_nowait().prompt
    shown = "".join("</s>" if token == 257 else chr(token) for token in tokens if token != 256)
    assert shown == prompt.replace("{</s>}", "</s>")
    # a control text of the request stays text
    assert tokens.count(257) == prompt.count("</s>") - prompt.count("{</s>}")


async def test_a_template_of_the_request_where_that_is_allowed(
    start_api: StartApi, http: aiohttp.ClientSession
) -> None:
    api = start_api(ApiSettings(trust_request_chat_template=True))
    body = {**CHAT, "chat_template": "{{ messages[0].content[:4] }}!"}
    async with http.post(f"{api.url}/v1/chat/completions", json=body) as response:
        assert response.status == 200, await response.text()
    assert bytes(token for token in api.service.submitted.get_nowait().prompt if token < 256) == b"What!"
    async with http.post(
        f"{api.url}/v1/chat/completions", json={**CHAT, "chat_template": "{% for %}"}
    ) as response:
        assert response.status == 400
    async with http.post(f"{api.url}/v1/chat/completions", json=CHAT) as response:
        assert response.status == 200
