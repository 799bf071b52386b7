"""One server per test over a fake service. `LiveServer` serves any other application the same way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import aiohttp
import pytest
import pytest_asyncio
from http_api import Api, StartApi, serve_fake


@pytest.fixture
def start_api() -> Iterator[StartApi]:
    """``start_api(settings, service)``: a server that is stopped after the test."""
    with ExitStack() as stack:
        yield lambda settings=None, service=None: stack.enter_context(serve_fake(settings, service))


@pytest.fixture
def api(start_api: StartApi) -> Api:
    return start_api()


@pytest.fixture(scope="module")
def shared_api() -> Iterator[Api]:
    """For tests that leave nothing behind: starting and stopping a server takes a quarter of a second."""
    with serve_fake() as api:
        yield api


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session
