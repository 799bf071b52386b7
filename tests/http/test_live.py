"""The state of the server and the page that shows it, over real sockets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
import pytest
from fake_service import FakeService
from http_api import Api, StartApi
from live_server import LiveServer

from rllm.api.app import create_app
from rllm.api.doors.live.live_state import LiveState
from rllm.api.settings import ApiKey, ApiSettings

KEYS = ApiSettings(api_keys=(ApiKey.from_secret("me", "s3cret"),))
REFERENCE = re.compile(r'(?:src|href)="(?!#)([^"]+)"|from "\./([^"]+)"')


async def get(http: aiohttp.ClientSession, url: str, **headers: str) -> tuple[int, bytes, Mapping[str, str]]:
    async with http.get(url, headers=headers, allow_redirects=False) as response:
        return response.status, await response.read(), response.headers


async def test_the_state_is_what_its_type_says(shared_api: Api, http: aiohttp.ClientSession) -> None:
    status, body, headers = await get(http, f"{shared_api.url}/v1/rllm/state")
    assert status == 200
    assert headers["cache-control"] == "no-store"
    state = msgspec.json.decode(body, type=LiveState)
    (instance,) = state.models[0].instances
    assert [view.phase for view in instance.sequences] == ["decode", "idle"]
    assert instance.sequences[0].cached_tokens == 20
    assert instance.spans[0].finish == "stop"
    assert [point.t for point in state.history["fake"]] == [998, 999]


async def test_who_has_seen_something_gets_only_what_is_new(
    shared_api: Api, http: aiohttp.ClientSession
) -> None:
    _, body, _ = await get(http, f"{shared_api.url}/v1/rllm/state?since=999.5")
    assert [point.t for point in msgspec.json.decode(body, type=LiveState).history[""]] == [999]


@pytest.mark.parametrize("since", ["yesterday", "-1", "nan", "inf", "%00", "1" * 5000])
async def test_a_time_that_is_none_is_refused_by_name(
    shared_api: Api, http: aiohttp.ClientSession, since: str
) -> None:
    status, body, _ = await get(http, f"{shared_api.url}/v1/rllm/state?since={since}")
    error: dict[str, Any] = msgspec.json.decode(body)["error"]
    assert (status, error["param"]) == (400, "since")
    assert len(error["message"]) < 300


@pytest.mark.parametrize(
    ("path", "scripts"),
    [("ui", {"main.js", "lanes.js", "style.css"}), ("docs", {"swagger-ui-bundle.js", "start.js"})],
)
async def test_a_page_loads_all_it_names_from_here(
    shared_api: Api, http: aiohttp.ClientSession, path: str, scripts: set[str]
) -> None:
    """Every file is there, and none is asked from another host or written into the page."""
    status, page, headers = await get(http, f"{shared_api.url}/{path}")
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    text = page.decode()
    assert not re.search(r"<style|<script(?![^>]*src)|\son\w+=|\sstyle=|https?://", text)
    missing, seen = {name for name, _ in REFERENCE.findall(text)}, set[str]()
    assert missing
    while missing - seen:
        name = (missing - seen).pop()
        seen.add(name)
        status, body, headers = await get(http, f"{shared_api.url}/{name}")
        assert status == 200, name
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        missing |= {f"{path}/{module}" for _, module in REFERENCE.findall(body.decode()) if module}
    assert {f"{path}/{name}" for name in scripts} <= seen


async def test_an_unchanged_file_is_not_sent_again(shared_api: Api, http: aiohttp.ClientSession) -> None:
    _, _, headers = await get(http, f"{shared_api.url}/ui/main.js")
    status, body, _ = await get(http, f"{shared_api.url}/ui/main.js", **{"if-none-match": headers["etag"]})
    assert (status, body) == (304, b"")


@pytest.mark.parametrize(
    "name", ["nothing.js", "..%2fpages.py", "%2e%2e/pages.py", "../settings.py", "a/b.js"]
)
async def test_nothing_else_is_served_from_there(shared_api: Api, name: str) -> None:
    """Raw, because clients tidy paths up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", shared_api.port)
    writer.write(f"GET /ui/{name} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith("HTTP/1.1 404 ")
    assert "import" not in answer


async def test_with_a_slash_one_gets_to_the_page(shared_api: Api, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{shared_api.url}/ui/") as response:
        assert response.status == 200
        assert response.url.path == "/ui"


async def test_the_page_needs_no_key_and_its_data_does(
    start_api: StartApi, http: aiohttp.ClientSession
) -> None:
    api = start_api(KEYS)
    for path in ("/ui", "/ui/main.js"):
        assert (await get(http, f"{api.url}{path}"))[0] == 200
    state = f"{api.url}/v1/rllm/state"
    assert (await get(http, state))[0] == 401
    assert (await get(http, state, authorization="Bearer s3cret"))[0] == 200
    assert (await get(http, f"{api.url}/uix"))[0] == 401


async def test_without_the_page_there_is_neither(http: aiohttp.ClientSession) -> None:
    app = create_app(FakeService(), ApiSettings(), render_metrics=lambda: b"")
    with LiveServer(app) as server:
        for path in ("/ui", "/ui/main.js", "/v1/rllm/state"):
            assert (await get(http, f"{server.url}{path}"))[0] == 404
