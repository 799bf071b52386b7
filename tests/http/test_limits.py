"""Keys, limits, deadlines and the retry policy, as clients meet them over real sockets."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import aiohttp
import openai
import pytest
from fake_service import FakeService
from http_api import CHAT, Api, StartApi
from live_server import LiveServer

from rllm.api.app import create_app
from rllm.api.settings import ApiSettings
from rllm.engine.types import EngineRequest
from rllm.errors import BodyTooSlow, EngineError, Overloaded, RateLimited, RllmError, TimedOut
from rllm.serving.keys import KeyEntry
from rllm.serving.limits import KeyLimits
from rllm.serving.service import Accepted, ServedModel
from rllm.serving.terms import ANYBODY, Terms

ASK = {"model": "fake", **CHAT}


class RecordingService(FakeService):
    """Keeps the terms, answers with headers, and refuses the first ``refusals`` requests."""

    def __init__(self, error: RllmError | None = None, refusals: int = 0) -> None:
        super().__init__(names=("fake", "smaller"))
        self.terms: queue.Queue[Terms] = queue.Queue()
        self.headers: tuple[tuple[str, str], ...] = ()
        self.answer_as: str | None = None
        self._error, self._refusals = error, refusals

    def submit(self, model: ServedModel, requests: list[EngineRequest], terms: Terms = ANYBODY) -> Accepted:
        self.terms.put(terms)
        if self._error is not None and self.terms.qsize() <= self._refusals:
            raise self._error
        accepted = super().submit(model, requests)
        return Accepted(
            accepted.streams, self.model(self.answer_as) if self.answer_as else model, self.headers
        )


RETRYABLE = [
    Overloaded("full", retry_after_s=0.01),
    RateLimited("slow down", retry_after_s=0.01),
    EngineError("the worker was lost", code="worker_lost"),
    BodyTooSlow("the body took too long"),
]
FINAL = [
    TimedOut("too late", code="deadline_exceeded"),
    TimedOut("too late", code="first_token_timeout"),
]


@pytest.mark.parametrize("error", RETRYABLE, ids=lambda error: error.code)
def test_the_official_client_retries_what_may_succeed_later(start_api: StartApi, error: RllmError) -> None:
    service = RecordingService(error, refusals=1)
    client = start_api(service=service).openai(max_retries=2)
    assert client.chat.completions.create(**ASK).choices[0].finish_reason == "length"
    assert service.terms.qsize() == 2
    client.close()


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
async def test_a_full_server_says_so_before_it_tokenizes(
    start_api: StartApi, http: aiohttp.ClientSession, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FakeService()
    service.closed_with = Overloaded("full", retry_after_s=1)

    def tokenize(*_: object, **__: object) -> list[int]:
        raise AssertionError("the prompt was looked at")

    api = start_api(service=service)
    monkeypatch.setattr(service.models()[0].vocabulary, "tokenize", tokenize)
    body = {**ASK, "prompt": "x"} if path == "completions" else ASK
    body = {name: value for name, value in body.items() if name != "messages" or path != "completions"}
    async with http.post(f"{api.url}/v1/{path}", json=body) as response:
        assert response.status == 503
        assert response.headers["retry-after-ms"] == "1000"
    record = api.record()
    assert (record.model, record.error_code) == ("fake", "server_is_overloaded")


class ClockedService(RecordingService):
    """Notes when it was asked."""

    def __init__(self, error: RllmError, refusals: int) -> None:
        super().__init__(error, refusals)
        self.asked_at: list[float] = []

    def submit(self, model: ServedModel, requests: list[EngineRequest], terms: Terms = ANYBODY) -> Accepted:
        self.asked_at.append(time.monotonic())
        return super().submit(model, requests, terms)


@pytest.mark.parametrize("refusal", [Overloaded, RateLimited])
def test_the_official_client_waits_as_long_as_it_is_told(
    start_api: StartApi, refusal: type[Overloaded | RateLimited]
) -> None:
    """Longer than its own first pause of at most 0.5 s; no machine is so fast that it would be less."""
    service = ClockedService(refusal("later", retry_after_s=0.9), refusals=2)
    client = start_api(service=service).openai(max_retries=2)
    assert client.chat.completions.create(**ASK).choices[0].finish_reason == "length"
    first, second, third = service.asked_at
    assert min(second - first, third - second) >= 0.9
    client.close()


@pytest.mark.parametrize("error", FINAL, ids=lambda error: error.code)
def test_it_does_not_retry_what_would_only_be_late_again(start_api: StartApi, error: RllmError) -> None:
    service = RecordingService(error, refusals=9)
    client = start_api(service=service).openai(max_retries=2)
    with pytest.raises(openai.APIStatusError):
        client.chat.completions.create(**ASK)
    assert service.terms.qsize() == 1
    client.close()


def test_a_request_beyond_the_keys_whole_limit_is_final(start_api: StartApi) -> None:
    error = RateLimited("more than the limit")
    error.headers = (("x-should-retry", "false"), ("x-ratelimit-limit-tokens", "10"))
    service = RecordingService(error, refusals=9)
    client = start_api(service=service).openai(max_retries=2)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**ASK)
    assert caught.value.response.headers.get_list("x-should-retry") == ["false"]
    assert caught.value.response.headers["x-ratelimit-limit-tokens"] == "10"
    assert service.terms.qsize() == 1
    client.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_headers_of_limits_and_degradation_reach_the_client(
    start_api: StartApi, http: aiohttp.ClientSession, stream: bool
) -> None:
    service = RecordingService()
    service.headers = (("x-ratelimit-remaining-requests", "7"), ("x-rllm-degraded", "model=smaller"))
    service.answer_as = "smaller"
    api = start_api(service=service)
    async with http.post(f"{api.url}/v1/chat/completions", json={**ASK, "stream": stream}) as response:
        text = await response.text()
    assert response.headers["x-ratelimit-remaining-requests"] == "7"
    assert response.headers["x-rllm-degraded"] == "model=smaller"
    assert '"model":"smaller"' in text
    assert api.record().model == "smaller"


async def test_deadlines_are_read_from_headers(start_api: StartApi, http: aiohttp.ClientSession) -> None:
    service = RecordingService()
    api = start_api(service=service)
    headers = {"x-request-timeout-ms": "1500", "x-request-ttft-ms": "250"}
    async with http.post(f"{api.url}/v1/chat/completions", json=ASK, headers=headers) as response:
        assert response.status == 200
    assert service.terms.get(timeout=5) == Terms(timeout_s=1.5, ttft_s=0.25, streaming=False)


@pytest.mark.parametrize("value", ["", "0", "-1", "1.5", "abc", "9" * 30])
async def test_a_deadline_that_is_no_number_is_refused_by_name(
    api: Api, http: aiohttp.ClientSession, value: str
) -> None:
    headers = {"x-request-timeout-ms": value}
    async with http.post(f"{api.url}/v1/chat/completions", json=ASK, headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == "x-request-timeout-ms"


@pytest.fixture
def changing_keys() -> Iterator[tuple[list[KeyEntry], str]]:
    """Keys that a test changes while the server runs, as a reload does; and the server's address."""
    keys = [_key("first", "one")]

    def current() -> Sequence[KeyEntry]:
        return tuple(keys)

    app = create_app(FakeService(), ApiSettings(), render_metrics=lambda: b"", more_keys=current)
    with ExitStack() as stack:
        yield keys, stack.enter_context(LiveServer(app)).url


def _key(name: str, secret: str) -> KeyEntry:
    return KeyEntry(name, hashlib.sha256(secret.encode()).digest(), KeyLimits())


async def test_a_reloaded_key_counts_from_the_next_request_on(
    changing_keys: tuple[list[KeyEntry], str], http: aiohttp.ClientSession
) -> None:
    keys, url = changing_keys

    async def status(secret: str) -> int:
        headers = {"authorization": f"Bearer {secret}"}
        async with http.get(f"{url}/v1/models", headers=headers) as response:
            return response.status

    assert [await status("one"), await status("two")] == [200, 401]
    keys[:] = [_key("second", "two")]
    assert [await status("one"), await status("two")] == [401, 200]


def test_threads_do_not_grow_with_refusals(start_api: StartApi) -> None:
    service = RecordingService(Overloaded("full", retry_after_s=1), refusals=10**6)
    client = start_api(service=service).openai()
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(**ASK)
    before = threading.active_count()
    for _ in range(50):
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(**ASK)
    assert threading.active_count() == before
    client.close()
