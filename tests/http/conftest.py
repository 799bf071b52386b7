"""One server per test over a fake service. `LiveServer` serves any other application the same way."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import aiohttp
import openai
import pytest
import pytest_asyncio
from fake_service import FakeService
from live_server import LiveServer

from rllm.api.app import create_app
from rllm.api.records import RequestRecord
from rllm.api.settings import ApiSettings


class Api:
    """A running server with what stands behind it."""

    def __init__(self, service: FakeService, server: LiveServer, records: queue.Queue[RequestRecord]) -> None:
        self.service = service
        self.url = server.url
        self.port = server.port
        self._records = records

    def record(self) -> RequestRecord:
        """The next one; waits for it."""
        return self._records.get(timeout=10)

    def no_more_records(self) -> bool:
        return self._records.empty()

    def openai(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=20)


StartApi = Callable[..., Api]


@pytest.fixture
def start_api() -> Iterator[StartApi]:
    """``start_api(settings, service)``: a server that is stopped after the test."""
    with ExitStack() as stack:

        def start(settings: ApiSettings | None = None, service: FakeService | None = None) -> Api:
            service = service or FakeService()
            records: queue.Queue[RequestRecord] = queue.Queue()
            app = create_app(
                service,
                settings or ApiSettings(),
                render_metrics=lambda: b"rllm_up 1\n",
                on_request=records.put,
            )
            return Api(service, stack.enter_context(LiveServer(app)), records)

        yield start
    leftover = [thread.name for thread in threading.enumerate() if thread.name == "live-server"]
    assert not leftover


@pytest.fixture
def api(start_api: StartApi) -> Api:
    return start_api()


@pytest_asyncio.fixture
async def http() -> Iterator[aiohttp.ClientSession]:  # type: ignore[misc] # an async fixture
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


CHAT = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 12}
