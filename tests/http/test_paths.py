"""Clients make their paths from a base URL in many ways. One route is meant, and one is found."""

from __future__ import annotations

import aiohttp
import pytest
from http_api import CHAT, Api, StartApi
from raw import ask

from rllm.api.http.paths import Paths
from rllm.api.settings import ApiKey, ApiSettings

HOST = b"host: localhost"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/chat/completions",
        "/v1/chat/completions/",
        "//v1//chat/completions",
        "/chat/completions//",
    ],
)
async def test_a_chat_is_answered_under_every_spelling_of_its_path(
    api: Api, http: aiohttp.ClientSession, path: str
) -> None:
    async with http.post(api.url + path, json=CHAT) as response:
        assert response.status == 200
    assert api.record().route == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/models", 200),
        ("/models/", 200),
        ("/models/fake", 200),
        ("/v1/health", 200),
        ("/v1/health/ready/", 200),
        ("/health/", 200),
        ("/metrics/", 200),
        ("/v1/v1/models", 404),
        ("/v2/models", 404),
        ("/v1", 404),
        ("/nothing/", 404),
        ("/completions/nothing", 404),
        ("/rllm/state", 200),
    ],
)
async def test_what_has_a_route_is_found_and_nothing_else(
    shared_api: Api, http: aiohttp.ClientSession, path: str, status: int
) -> None:
    async with http.get(shared_api.url + path) as response:
        assert response.status == status


@pytest.mark.parametrize(
    "path", ["/v1/models", "/models/", "/health", "/metrics", "/ui", "/docs", "/version"]
)
async def test_head_is_get_without_a_body(shared_api: Api, path: str) -> None:
    line = path.encode()
    get = await ask(shared_api.port, b"GET " + line + b" HTTP/1.1", HOST)
    head = await ask(shared_api.port, b"HEAD " + line + b" HTTP/1.1", HOST)
    assert (head.status, head.body) == (get.status, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


async def test_head_where_there_is_no_get_names_the_methods(shared_api: Api) -> None:
    answer = await ask(shared_api.port, b"HEAD /v1/chat/completions HTTP/1.1", HOST)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "path", ["/metrics/", "/v1/metrics", "//metrics", "/v1//metrics/", "/rllm/state", "/slots/", "/models"]
)
async def test_no_spelling_of_a_path_goes_around_the_key(start_api: StartApi, path: str) -> None:
    api = start_api(ApiSettings(api_keys=(ApiKey.from_secret("a", "k"),)))
    for method in (b"GET", b"HEAD"):
        answer = await ask(api.port, method + b" " + path.encode() + b" HTTP/1.1", HOST)
        assert answer.status == 401


def test_pages_keep_their_slashes() -> None:
    async def app(*_: object) -> None: ...

    paths = Paths(app, routes=["/ui", "/v1/models", "/v1/models/{model}", "/tokenize", "/"])
    assert paths.of("/ui/main.js") == "/ui/main.js"
    assert paths.of("/ui/") == "/ui/"
    assert paths.of("/") == "/"
    assert paths.of("") == "/"
    assert paths.of("/v1/tokenize") == "/tokenize"
    assert paths.of("/models/org/name") == "/v1/models/org/name"
