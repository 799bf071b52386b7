from __future__ import annotations

import aiohttp
import pytest
from fake_service import ANSWER, Script
from http_api import CHAT, Api, StartApi, events

from rllm.api.doors.openai_chat.answers import ChatCompletion
from rllm.api.doors.openai_completions.answers import Completion
from rllm.api.settings import ApiSettings


async def test_a_plain_answer_has_openais_shape(api: Api, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{api.url}/v1/chat/completions", json=CHAT) as response:
        assert response.status == 200
        answer = ChatCompletion.model_validate(await response.json(), strict=True)
    assert answer.choices[0].message.content == ANSWER[:12]
    assert answer.choices[0].finish_reason == "length"
    assert answer.model == "fake"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert answer.timings is not None


async def test_a_stream_begins_with_the_role_and_ends_with_done(
    api: Api, http: aiohttp.ClientSession
) -> None:
    async with http.post(f"{api.url}/v1/chat/completions", json={**CHAT, "stream": True}) as response:
        assert response.status == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        *chunks, done = await events(response)
    assert done == "[DONE]"
    first, *middle, last = chunks
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in (*middle, last)) == ANSWER[:12]
    delta = {"content": ANSWER[11:12]}
    assert last["choices"][0] == {"index": 0, "delta": delta, "logprobs": None, "finish_reason": "length"}
    assert {chunk["id"] for chunk in chunks} == {first["id"]}
    assert all(chunk["object"] == "chat.completion.chunk" and "usage" not in chunk for chunk in chunks)


async def test_usage_comes_in_a_last_chunk_without_choices(api: Api, http: aiohttp.ClientSession) -> None:
    api.service.script = Script(cached_tokens=7)
    body = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}
    async with http.post(f"{api.url}/v1/chat/completions", json=body) as response:
        *chunks, usage, _done = await events(response)
    assert all(chunk["usage"] is None for chunk in chunks)
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 12
    assert usage["usage"]["prompt_tokens_details"] == {"cached_tokens": 7}


async def test_a_model_that_ends_by_itself_says_stop(api: Api, http: aiohttp.ClientSession) -> None:
    api.service.script = Script(stop_after=5)
    async with http.post(f"{api.url}/v1/chat/completions", json=CHAT) as response:
        choice = (await response.json())["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("The c", "stop")


@pytest.mark.parametrize("stream", [False, True])
async def test_n_choices_have_their_own_seeds_and_indexes(
    api: Api, http: aiohttp.ClientSession, stream: bool
) -> None:
    body = {**CHAT, "n": 3, "seed": 41, "stream": stream}
    async with http.post(f"{api.url}/v1/chat/completions", json=body) as response:
        if stream:
            texts = {0: "", 1: "", 2: ""}
            for chunk in await events(response):
                for choice in chunk["choices"] if chunk != "[DONE]" else []:
                    texts[choice["index"]] += choice["delta"].get("content", "")
        else:
            answer = ChatCompletion.model_validate(await response.json(), strict=True)
            texts = {choice.index: choice.message.content for choice in answer.choices}
            assert answer.usage.completion_tokens == 36  # the prompt counts once, the answers all
            assert answer.usage.total_tokens == answer.usage.prompt_tokens + 36
    assert texts == {0: ANSWER[:12], 1: ANSWER[:12], 2: ANSWER[:12]}
    seeds = [api.service.submitted.get_nowait().sampling.seed for _ in range(3)]
    assert seeds == [41, 42, 43]


async def test_parameters_reach_the_engine(api: Api, http: aiohttp.ClientSession) -> None:
    body = {
        "model": "fake-alias",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
        ],
        "max_completion_tokens": 9,
        "max_tokens": 20,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": -1,
        "min_p": 0.1,
        "typical_p": 0.8,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": -0.2,
        "seed": 2**40,
        "stop": ["x", "y"],
        "logit_bias": {"7": -100},
        "ignore_eos": True,
        "min_tokens": 3,
        "priority": 2,
        "cache_salt": "mine",
        "user": "somebody",
        "store": False,
    }
    async with http.post(f"{api.url}/v1/chat/completions", json=body) as response:
        assert response.status == 200, await response.text()
    request = api.service.submitted.get_nowait()
    assert bytes(token for token in request.prompt if token < 256) == b"user\na\nb\nassistant\n"
    assert (request.max_tokens, request.min_tokens, request.ignore_eos) == (9, 3, True)
    assert (request.stop, request.priority, request.cache_salt) == (("x", "y"), 2, "mine")
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 0, 0.1)
    assert (sampling.typical_p, sampling.repetition_penalty) == (0.8, 1.1)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.2, -0.2)
    assert sampling.seed == 2**40 % (2**32 - 1)
    assert sampling.logit_bias == ((7, -100.0),)


async def test_defaults_are_openais(api: Api, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{api.url}/v1/chat/completions", json={"messages": CHAT["messages"]}) as response:
        assert (await response.json())["choices"][0]["finish_reason"] == "length"
    request = api.service.submitted.get_nowait()
    assert len(request.prompt) + request.max_tokens == 512
    assert (request.sampling.temperature, request.sampling.top_p, request.sampling.num_logprobs) == (
        1.0,
        1.0,
        -1,
    )
    async with http.post(f"{api.url}/v1/completions", json={"prompt": "x"}) as response:
        assert response.status == 200
    assert api.service.submitted.get_nowait().max_tokens == 16


@pytest.mark.parametrize("stream", [False, True])
async def test_log_probabilities_of_a_chat(api: Api, http: aiohttp.ClientSession, stream: bool) -> None:
    body = {**CHAT, "max_tokens": 2, "logprobs": True, "top_logprobs": 1, "stream": stream}
    async with http.post(f"{api.url}/v1/chat/completions", json=body) as response:
        if stream:
            chunks = (await events(response))[:-1]
            found = [chunk["choices"][0]["logprobs"] for chunk in chunks if chunk["choices"][0]["logprobs"]]
            content = [item for logprobs in found for item in logprobs["content"]]
        else:
            answer = ChatCompletion.model_validate(await response.json(), strict=True)
            assert answer.choices[0].logprobs is not None
            content = [item.model_dump() for item in answer.choices[0].logprobs.content]
    top = [{"token": "\x00", "logprob": -0.5, "bytes": [0]}]
    assert content == [
        {"token": "T", "logprob": -0.5, "bytes": [84], "top_logprobs": top},
        {"token": "h", "logprob": -0.5, "bytes": [104], "top_logprobs": top},
    ]


async def test_completions_take_every_kind_of_prompt(api: Api, http: aiohttp.ClientSession) -> None:
    prompts = {"ab": 1, ("ab", "c"): 2, (97, 98): 1, ((97,), (98, 99)): 2}
    for prompt, count in prompts.items():
        async with http.post(
            f"{api.url}/v1/completions", json={"prompt": prompt, "max_tokens": 4}
        ) as response:
            answer = Completion.model_validate(await response.json(), strict=True)
        assert [choice.index for choice in answer.choices] == list(range(count))
        assert {choice.text for choice in answer.choices} == {"The "}
    sent = [api.service.submitted.get_nowait().prompt for _ in range(6)]
    assert sent == [(256, 97, 98), (256, 97, 98), (256, 99), (97, 98), (97,), (98, 99)]


@pytest.mark.parametrize("stream", [False, True])
async def test_echo_begins_with_the_prompt(api: Api, http: aiohttp.ClientSession, stream: bool) -> None:
    body = {"prompt": [[97, 98], [99]], "n": 2, "max_tokens": 4, "echo": True, "stream": stream}
    texts = dict.fromkeys(range(4), "")
    async with http.post(f"{api.url}/v1/completions", json=body) as response:
        answers = (await events(response))[:-1] if stream else [await response.json()]
    for answer in answers:
        for choice in answer["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == {0: "abThe ", 1: "abThe ", 2: "cThe ", 3: "cThe "}


async def test_text_offsets_go_on_over_the_chunks(api: Api, http: aiohttp.ClientSession) -> None:
    body = {"prompt": "x", "max_tokens": 3, "logprobs": 2, "stream": True}
    async with http.post(f"{api.url}/v1/completions", json=body) as response:
        chunks = (await events(response))[:-1]
    logprobs = [chunk["choices"][0]["logprobs"] for chunk in chunks if chunk["choices"][0]["logprobs"]]
    assert [offset for item in logprobs for offset in item["text_offset"]] == [0, 1, 2]
    assert [token for item in logprobs for token in item["tokens"]] == ["T", "h", "e"]
    tops = [top for item in logprobs for top in item["top_logprobs"]]
    assert [set(top) for top in tops] == [{"\x00", "\x01", letter} for letter in "The"]


async def test_a_prompt_is_reported_in_openais_and_in_vllms_way(
    api: Api, http: aiohttp.ClientSession
) -> None:
    body = {"prompt": "a<s>b", "max_tokens": 0, "echo": True, "logprobs": 0, "prompt_logprobs": 1}
    async with http.post(f"{api.url}/v1/completions", json=body) as response:
        answer = Completion.model_validate(await response.json(), strict=True)
    choice = answer.choices[0]
    assert (choice.text, choice.finish_reason) == ("a<s>b", "length")
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == ["<s>", "a", "<s>", "b"]
    assert choice.logprobs.token_logprobs == [None, -0.5, -0.5, -0.5]
    assert choice.logprobs.top_logprobs == [None, {"a": -0.5}, {"<s>": -0.5}, {"b": -0.5}]
    assert choice.logprobs.text_offset == [0, 0, 1, 4]
    assert choice.prompt_logprobs is not None
    assert [entry and list(entry) for entry in choice.prompt_logprobs] == [
        None,
        ["0", "97"],
        ["0", "256"],
        ["0", "98"],
    ]
    request = api.service.submitted.get_nowait()
    assert (request.max_tokens, request.sampling.num_prompt_logprobs) == (0, 1)


async def test_figures_of_prompts_are_bounded(start_api: StartApi, http: aiohttp.ClientSession) -> None:
    api = start_api(ApiSettings(max_prompt_logprobs=50))
    body = {"prompt": "x" * 10, "prompt_logprobs": 4}
    async with http.post(f"{api.url}/v1/completions", json=body) as response:
        assert (await response.json())["error"]["param"] == "prompt_logprobs"
    body["prompt_logprobs"] = 3
    async with http.post(f"{api.url}/v1/completions", json=body) as response:
        assert response.status == 200


@pytest.mark.parametrize("limit", [4096, -1, 10**9])
async def test_more_tokens_than_there_is_room_for_are_as_many_as_that(
    api: Api, http: aiohttp.ClientSession, limit: int
) -> None:
    async with http.post(f"{api.url}/v1/completions", json={"prompt": "ab", "max_tokens": limit}) as response:
        answer = await response.json()
    assert (answer["usage"]["total_tokens"], answer["choices"][0]["finish_reason"]) == (512, "length")


async def test_a_record_tells_what_happened(api: Api, http: aiohttp.ClientSession) -> None:
    api.service.script = Script(cached_tokens=3)
    async with http.post(f"{api.url}/v1/chat/completions", json={**CHAT, "stream": True, "n": 2}) as response:
        await response.read()
        request_id = response.headers["x-request-id"]
    record = api.record()
    assert (record.request_id, record.route, record.status) == (request_id, "/v1/chat/completions", 200)
    assert (record.model, record.streamed, record.num_choices) == ("fake", True, 2)
    assert record.finish_reasons == ("length", "length")
    assert (record.completion_tokens, record.cached_tokens) == (24, 3)
    assert record.ttft_s is not None
    assert 0 < record.ttft_s <= record.duration_s
    assert record.error_code is None
    assert api.no_more_records()
