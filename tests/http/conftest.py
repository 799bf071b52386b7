"""One server per test over a fake service. `LiveServer` serves any other application the same way."""

from __future__ import annotations

import queue
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import aiohttp
import pytest
import pytest_asyncio
from fake_service import FakeService
from http_api import Api, StartApi
from live_server import LiveServer

from rllm.api.app import create_app
from rllm.api.records import RequestRecord
from rllm.api.settings import ApiSettings


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


@pytest.fixture
def api(start_api: StartApi) -> Api:
    return start_api()


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session
