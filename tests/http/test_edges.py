"""Request ids, keys, health, metrics, CORS, tokens, models."""

from __future__ import annotations

import aiohttp
import pytest
from http_api import CHAT, Api, StartApi

from rllm.api.settings import ApiKey, ApiSettings
from rllm.serving.service import Health


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("abc-1.2:3_x", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("a b", False),
        ('a"b', False),
        ("é", False),
    ],
)
async def test_a_harmless_request_id_is_kept(
    api: Api, http: aiohttp.ClientSession, given: str, kept: bool
) -> None:
    async with http.get(f"{api.url}/health/live", headers={"x-request-id": given}) as response:
        answered = response.headers["x-request-id"]
        assert int(response.headers["openai-processing-ms"]) >= 0
    assert (answered == given) is kept
    assert api.record().request_id == answered


async def test_the_engine_sees_the_request_id_once_per_choice(api: Api, http: aiohttp.ClientSession) -> None:
    """The same id twice is the client's right; the engine's ids still differ."""
    for _ in range(2):
        body = {**CHAT, "n": 2}
        async with http.post(
            f"{api.url}/v1/chat/completions", json=body, headers={"x-request-id": "mine"}
        ) as response:
            assert response.status == 200
    ids = [api.service.submitted.get_nowait().id for _ in range(4)]
    assert len(set(ids)) == 4
    assert all(one.startswith("mine.") for one in ids)


KEYED = ApiSettings(api_keys=(ApiKey.from_secret("team-a", "sk-one"), ApiKey.from_secret("team-b", "sk-twö")))


@pytest.mark.parametrize(
    "header",
    [None, "sk-one", "Basic sk-one", "Bearer", "Bearer sk-on", "Bearer sk-one2", "Bearer \xff"],
)
async def test_without_a_right_key_nobody_gets_in(
    start_api: StartApi, http: aiohttp.ClientSession, header: str | None
) -> None:
    api = start_api(KEYED)
    headers = {"authorization": header} if header else {}
    for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/nothing"):
        async with http.get(f"{api.url}{path}", headers=headers) as response:
            assert response.status == 401
            error = (await response.json())["error"]
            assert error["type"] == "authentication_error"
            assert error["code"] in ("invalid_api_key", "missing_api_key")
            assert response.headers["www-authenticate"] == "Bearer"
    for path in ("/health", "/health/live", "/health/ready"):
        async with http.get(f"{api.url}{path}") as response:
            assert response.status == 200


async def test_the_records_name_the_key_and_never_show_it(
    start_api: StartApi, http: aiohttp.ClientSession
) -> None:
    api = start_api(KEYED)
    async with http.get(f"{api.url}/v1/models", headers={"authorization": "bearer sk-one"}) as response:
        assert response.status == 200
    assert api.record().client_key == "team-a"
    assert "sk-one" not in repr(KEYED)


async def test_metrics_can_be_opened(start_api: StartApi, http: aiohttp.ClientSession) -> None:
    api = start_api(ApiSettings(api_keys=KEYED.api_keys, open_metrics=True))
    async with http.get(f"{api.url}/metrics") as response:
        assert await response.text() == "rllm_up 1\n"
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize("path", ["/health", "/health/ready"])
async def test_health_turns_with_the_service(api: Api, http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(f"{api.url}{path}") as response:
        assert (response.status, (await response.json())["status"]) == (200, "ok")
    api.service.health_now = Health(False, "draining", (("fake-0", "stopping"),))
    async with http.get(f"{api.url}{path}") as response:
        body = await response.json()
        assert (response.status, body["status"]) == (503, "draining")
        assert body["instances"] == {"fake-0": "stopping"}
        assert body["error"]["type"] == "unavailable_error"
    async with http.get(f"{api.url}/health/live") as response:
        assert response.status == 200


async def test_there_is_no_cors_unless_wanted(
    api: Api, start_api: StartApi, http: aiohttp.ClientSession
) -> None:
    origin = {"origin": "https://page.example", "access-control-request-method": "POST"}
    async with http.get(f"{api.url}/v1/models", headers=origin) as response:
        assert "access-control-allow-origin" not in response.headers
    open_api = start_api(ApiSettings(cors_origins=("https://page.example",), api_keys=KEYED.api_keys))
    async with http.options(f"{open_api.url}/v1/chat/completions", headers=origin) as response:
        assert response.status == 200  # a preflight carries no key
        assert response.headers["access-control-allow-origin"] == "https://page.example"


async def test_tokens_in_both_dialects(api: Api, http: aiohttp.ClientSession) -> None:
    asked = [
        ({"content": "a<s>"}, [97, 256]),
        ({"prompt": "a<s>"}, [256, 97, 256]),
        ({"content": "a", "add_special": True}, [256, 97]),
        ({"prompt": "a", "add_special_tokens": False}, [97]),
        ({"content": "<s>", "parse_special": False}, [60, 115, 62]),
        ({"content": ""}, []),
        ({"content": "a", "with_pieces": True}, [{"id": 97, "piece": "a"}]),
    ]
    for body, tokens in asked:
        async with http.post(f"{api.url}/tokenize", json=body) as response:
            answer = await response.json()
        assert answer == {"tokens": tokens, "count": len(tokens), "max_model_len": 512}
    async with http.post(f"{api.url}/detokenize", json={"tokens": [97, 256]}) as response:
        assert await response.json() == {"content": "a<s>", "prompt": "a<s>"}


@pytest.mark.parametrize(
    "body", [{}, {"content": "a", "prompt": "b"}, {"content": 5}, {"content": "a" * 2000}]
)
async def test_tokenize_refuses(start_api: StartApi, http: aiohttp.ClientSession, body: object) -> None:
    api = start_api(ApiSettings(max_tokenize_bytes=1024))
    async with http.post(f"{api.url}/tokenize", json=body) as response:
        assert response.status == 400
    async with http.post(f"{api.url}/detokenize", json={"tokens": [260]}) as response:
        assert response.status == 400


async def test_tokenizing_messages_gives_the_prompt_of_a_chat(api: Api, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{api.url}/tokenize", json={"messages": CHAT["messages"]}) as response:
        tokens = (await response.json())["tokens"]
    async with http.post(f"{api.url}/v1/chat/completions", json=CHAT) as response:
        assert response.status == 200
    assert api.service.submitted.get_nowait().prompt == tuple(tokens)


async def test_models_show_what_clients_need_and_no_paths(api: Api, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{api.url}/v1/models") as response:
        text = await response.text()
    assert '"max_model_len":512' in text
    assert "secret" not in text
    async with http.get(f"{api.url}/v1/models/fake-alias") as response:
        assert (await response.json())["id"] == "fake"
