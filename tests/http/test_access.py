"""Who gets in, under which name, and who sees what concerns all callers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from fake_live import look, views
from fake_service import FakeService
from http_api import StartApi
from live_server import LiveServer
from raw import ask

from rllm.api.app import create_app
from rllm.api.http.authorization import OPEN
from rllm.api.http.hosts import matcher, name_of
from rllm.api.settings import ApiKey, ApiSettings
from rllm.serving.keys import KeyEntry
from rllm.serving.limits import KeyLimits

GET = b"GET /v1/models HTTP/1.1"
HOST = b"host: localhost"
KEYS = ApiSettings(
    api_keys=(
        ApiKey.from_secret("a", "sk-one"),
        ApiKey.from_secret("b", "sk-zwölf"),
        ApiKey.from_secret("c", "π"),
    )
)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a server with keys."""
    with LiveServer(create_app(FakeService(), KEYS, render_metrics=lambda: b"")) as server:
        yield server.port


@pytest.mark.parametrize(
    "headers",
    [
        [b"authorization: Bearer sk-one"],
        [b"authorization: bearer   sk-one  "],
        [b"x-api-key: sk-one"],
        [b"authorization: Bearer sk-one", b"x-api-key: sk-one"],
        [b"authorization: Bearer ", b"x-api-key: sk-one"],
        [b"authorization: Bearer sk-one", b"x-api-key:"],
        ["authorization: Bearer sk-zwölf".encode()],
        ["authorization: Bearer sk-zwölf".encode("latin-1")],
        ["x-api-key: π".encode()],
    ],
)
async def test_a_right_key_is_found_however_it_is_sent(port: int, headers: list[bytes]) -> None:
    assert (await ask(port, GET, HOST, *headers)).status == 200


@pytest.mark.parametrize(
    ("headers", "code", "word"),
    [
        ([], "missing_api_key", "x-api-key"),
        ([b"authorization: Bearer"], "missing_api_key", "Bearer"),
        ([b"authorization: Bearer "], "missing_api_key", "Bearer"),
        ([b"x-api-key: "], "missing_api_key", "Bearer"),
        ([b"x-api-key: sk-on"], "invalid_api_key", "Incorrect"),
        ([b"authorization: Basic sk-one"], "invalid_api_key", "Bearer KEY"),
        ([b"authorization: Basic sk-one", b"x-api-key: sk-one"], "invalid_api_key", "Bearer KEY"),
        ([b"authorization: Bearer sk-one"] * 2, "invalid_api_key", "one authorization header; got 2"),
        ([b"authorization: Bearer sk-one", b"authorization: Bearer no"], "invalid_api_key", "got 2"),
        ([b"x-api-key: sk-one"] * 2, "invalid_api_key", "one x-api-key header; got 2"),
        ([b"authorization: Bearer sk-one", b"x-api-key: no"], "invalid_api_key", "Incorrect"),
        ([b"authorization: Bearer sk-one", "x-api-key: sk-zwölf".encode()], "invalid_api_key", "two callers"),
        ([b"authorization: Bearer \xff\xfe"], "invalid_api_key", "Incorrect"),
    ],
)
async def test_whoever_has_no_key_or_two_is_refused(
    port: int, headers: list[bytes], code: str, word: str
) -> None:
    answer = await ask(port, GET, HOST, *headers)
    assert (answer.status, answer.error["code"]) == (401, code)
    assert word in answer.error["message"]
    assert "sk-" not in answer.error["message"]


def _entry(name: str, operator: bool) -> KeyEntry:
    return KeyEntry(name, hashlib.sha256(name.encode()).digest(), KeyLimits(), operator)


async def test_only_an_operators_key_sees_what_all_callers_do() -> None:
    """Names of keys are in the metrics, request ids in the live state. Health says nothing of callers.

    Whoever adds a route of this kind must decide.
    """
    keys = (_entry("caller", False), _entry("operator", True))
    app = create_app(
        FakeService(),
        ApiSettings(),
        render_metrics=lambda: b"x 1\n",
        more_keys=lambda: keys,
        look=look,
        views=views,
    )
    paths = [
        path
        for path, methods in app.openapi()["paths"].items()
        if "operations" in methods.get("get", {}).get("tags", ()) and path not in OPEN
    ]
    assert {"/metrics", "/slots", "/v1/rllm/state"} <= set(paths)
    with LiveServer(app) as server:
        for path in paths:
            line = f"GET {path} HTTP/1.1".encode()
            assert (await ask(server.port, line, HOST, b"x-api-key: operator")).status == 200
            answer = await ask(server.port, line, HOST, b"x-api-key: caller")
            assert (answer.status, answer.error["code"]) == (403, "forbidden"), path
            assert "operator = true" in answer.error["message"]
        assert (await ask(server.port, GET, HOST, b"x-api-key: caller")).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"localhost", 200),
        (b"LOCALHOST:8000", 200),
        (b"localhost.:8000", 200),
        (b"app.localhost", 200),
        (b"127.0.0.1:1", 200),
        (b"127.8.8.8", 200),
        (b"[::1]:8000", 200),
        (b"192.0.2.7", 200),
        (b"mine.example", 200),
        (b"evil.example", 403),
        (b"evil.example:8000", 403),
        (b"localhost.evil.example", 403),
        (b"evillocalhost", 403),
        (b"127.0.0.1.evil.example", 403),
        (b"localhost:80@evil.example", 403),
        (b"[::1]evil.example", 403),
        ("lócalhost".encode(), 403),
    ],
)
async def test_a_page_that_calls_the_server_by_its_own_name_is_refused(
    start_api: StartApi, host: bytes, status: int
) -> None:
    api = start_api(ApiSettings(allowed_hosts=("mine.example",)))
    answer = await ask(api.port, GET, b"host: " + host)
    assert answer.status == status
    if status == 403:
        assert answer.error["code"] == "host_not_allowed"
        assert "--allowed-hosts" in answer.error["message"]
        assert api.record().error_code == "host_not_allowed"


async def test_a_request_has_one_host_or_none(start_api: StartApi) -> None:
    api = start_api(ApiSettings(allowed_hosts=()))
    assert (await ask(api.port, b"GET /v1/models HTTP/1.0")).status == 200
    assert (await ask(api.port, GET, HOST, b"host: evil.example")).status == 400


def test_names_are_allowed_one_by_one_by_their_ending_or_all() -> None:
    is_allowed = matcher(["api.example.org", "*.Example.com"])
    assert is_allowed("api.example.org")
    assert is_allowed("a.b.example.com")
    assert not is_allowed("example.com")
    assert not is_allowed("notexample.com")
    assert not is_allowed("www.example.org")
    assert matcher(["*"])("whatever")
    assert name_of("a b") is None
