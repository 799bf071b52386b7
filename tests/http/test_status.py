"""The routes by which llama-server's and vLLM's clients, dashboards and routers know a server."""

from __future__ import annotations

import aiohttp
import pytest
from fake_service import FakeService, Script
from http_api import CHAT, Api, StartApi

from rllm import __version__
from rllm.api.settings import ApiSettings
from rllm.serving.service import Health


async def get(http: aiohttp.ClientSession, url: str) -> tuple[int, object]:
    async with http.get(url) as response:
        return response.status, await response.json()


async def test_version_load_and_ping(api: Api, http: aiohttp.ClientSession) -> None:
    assert await get(http, f"{api.url}/version") == (200, {"version": __version__})
    assert await get(http, f"{api.url}/load") == (200, {"server_load": 0})
    api.service.script = Script(hold_after=1)
    async with http.post(f"{api.url}/v1/chat/completions", json={**CHAT, "stream": True}) as response:
        await response.content.readany()
        assert await get(http, f"{api.url}/load") == (200, {"server_load": 1})
    for method in ("GET", "POST"):
        async with http.request(method, f"{api.url}/ping") as response:
            assert response.status == 200
    api.service.health_now = Health(False, "draining")
    async with http.get(f"{api.url}/ping") as response:
        assert response.status == 503


async def test_props_are_of_the_model_that_is_named_and_show_no_paths(
    start_api: StartApi, http: aiohttp.ClientSession
) -> None:
    api = start_api(service=FakeService(names=("one", "two"), template="{{ messages[0].content }}"))
    status, props = await get(http, f"{api.url}/props?model=two-alias")
    assert status == 200
    assert isinstance(props, dict)
    assert props["model_alias"] == "two"
    assert props["default_generation_settings"]["n_ctx"] == 512
    assert props["total_slots"] == 4
    assert props["chat_template"] == "{{ messages[0].content }}"
    assert "/secret/path" not in str(props)
    assert (await get(http, f"{api.url}/props?model=three"))[0] == 404


async def test_the_tokenizer_says_what_it_is(api: Api, http: aiohttp.ClientSession) -> None:
    status, info = await get(http, f"{api.url}/tokenizer_info")
    assert status == 200
    assert isinstance(info, dict)
    assert (info["bos_token"], info["eos_token"], info["vocab_size"]) == ("<s>", "</s>", 260)
    assert info["add_bos_token"] is True


async def test_slots_are_as_many_as_there_are_the_busy_ones_first(
    shared_api: Api, http: aiohttp.ClientSession
) -> None:
    status, slots = await get(http, f"{shared_api.url}/slots")
    assert status == 200
    assert isinstance(slots, list)
    assert [slot["is_processing"] for slot in slots] == [True, False, False, False]
    assert [slot["id"] for slot in slots] == [0, 1, 2, 3]
    assert slots[0]["next_token"] == [{"has_next_token": True, "n_remain": 53, "n_decoded": 11}]
    assert (slots[0]["n_prompt_tokens"], slots[0]["n_prompt_tokens_cache"]) == (30, 20)
    assert (await get(http, f"{shared_api.url}/slots?fail_on_no_slot=1"))[0] == 200


async def test_a_conversation_is_shown_as_text_tokens_and_their_number(
    api: Api, http: aiohttp.ClientSession
) -> None:
    async with http.post(f"{api.url}/apply-template", json=CHAT) as response:
        text = (await response.json())["prompt"]
    assert text == "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    async with http.post(f"{api.url}/tokenize", json={"messages": CHAT["messages"]}) as response:
        tokens = (await response.json())["tokens"]
    async with http.post(f"{api.url}/v1/chat/completions/input_tokens", json=CHAT) as response:
        assert await response.json() == {"input_tokens": len(tokens)}
    body = {**CHAT, "temperature": 0.5, "seed": 7, "stop": ["x"]}
    async with http.post(f"{api.url}/v1/chat/completions/render", json=body) as response:
        rendered = await response.json()
    assert rendered["token_ids"] == tokens
    assert rendered["model"] == "fake"
    asked = rendered["sampling_params"]
    assert (asked["temperature"], asked["seed"], asked["stop"], asked["max_tokens"]) == (0.5, 7, ["x"], 12)
    assert api.service.submitted.empty()  # nobody asked the model


async def test_prompts_are_rendered_each(api: Api, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{api.url}/v1/completions/render", json={"prompt": ["a", "bc"]}) as response:
        rendered = await response.json()
    assert [each["token_ids"] for each in rendered] == [[256, 97], [256, 98, 99]]
    assert len({each["request_id"] for each in rendered}) == 2
    async with http.post(f"{api.url}/completions/render", json={"prompt": [[97], [300]]}) as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == "prompt[1]"


async def test_tokenize_takes_vllms_fields(api: Api, http: aiohttp.ClientSession) -> None:
    body = {"messages": CHAT["messages"]}

    async def tokenize(**more: object) -> dict[str, object]:
        async with http.post(f"{api.url}/tokenize", json={**body, **more}) as response:
            assert response.status == 200
            answer: dict[str, object] = await response.json()
            return answer

    whole, open_end = await tokenize(), await tokenize(add_generation_prompt=False)
    assert isinstance(whole["tokens"], list)
    assert isinstance(open_end["tokens"], list)
    assert whole["tokens"][: len(open_end["tokens"])] == open_end["tokens"]
    assert len(open_end["tokens"]) < len(whole["tokens"])
    shown = await tokenize(return_token_strs=True)
    assert "".join(map(str, shown["token_strs"])).startswith("<s><|im_start|>user\n")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:8080", "http://a.localhost"]
)
async def test_the_word_localhost_allows_pages_of_this_machine(
    start_api: StartApi, http: aiohttp.ClientSession, origin: str
) -> None:
    api = start_api(ApiSettings(cors_origins=("localhost",)))
    async with http.get(f"{api.url}/v1/models", headers={"origin": origin}) as response:
        assert response.headers["access-control-allow-origin"] == origin
    for foreign in ("http://localhost.evil.example", "https://evil.example", "http://127.0.0.1.evil.example"):
        async with http.get(f"{api.url}/v1/models", headers={"origin": foreign}) as response:
            assert "access-control-allow-origin" not in response.headers


async def test_a_page_of_an_allowed_origin_may_send_any_header(
    start_api: StartApi, http: aiohttp.ClientSession
) -> None:
    """The official client's preflight names a dozen of its own; and Chrome asks about private networks."""
    api = start_api(ApiSettings(cors_origins=("https://page.example/",)))
    names = "authorization,content-type,x-stainless-arch,x-stainless-retry-count,x-stainless-runtime-version"
    headers = {
        "origin": "https://page.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": names,
        "access-control-request-private-network": "true",
    }
    async with http.options(f"{api.url}/chat/completions", headers=headers) as response:
        assert response.status == 200
        assert response.headers["access-control-allow-headers"] == names
        assert response.headers["access-control-allow-private-network"] == "true"
    async with http.post(f"{api.url}/v1/chat/completions", json=CHAT, headers=headers) as response:
        assert response.headers["access-control-allow-origin"] == "https://page.example"
        assert response.headers["access-control-expose-headers"] == "*"
    headers["origin"] = "https://other.example"
    async with http.options(f"{api.url}/v1/chat/completions", headers=headers) as response:
        assert response.status == 400
