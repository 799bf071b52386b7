"""What the HTTP tests share: a running server with what stands behind it, and a reader of event streams."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import openai
from fake_live import look, views
from fake_service import FakeService
from live_server import LiveServer

from rllm.api.app import create_app
from rllm.api.http.records import RequestRecord
from rllm.api.settings import ApiSettings

CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "max_tokens": 12,
}


class Api:
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

    def openai(self, key: str = "none", *, max_retries: int = 0) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=max_retries, timeout=20)


StartApi = Callable[..., Api]
"""``start_api(settings, service)``, see conftest."""


@contextmanager
def serve_fake(settings: ApiSettings | None = None, service: FakeService | None = None) -> Iterator[Api]:
    service = service or FakeService()
    records: queue.Queue[RequestRecord] = queue.Queue()
    app = create_app(
        service,
        settings or ApiSettings(),
        render_metrics=lambda: b"rllm_up 1\n",
        on_request=records.put,
        look=look,
        views=views,
    )
    with LiveServer(app) as server:
        yield Api(service, server, records)


async def events(response: aiohttp.ClientResponse) -> list[Any]:
    """The data of every event, decoded; "[DONE]" as it is; comments left out."""
    text = (await response.read()).decode()
    assert text.endswith("\n\n")
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert all(block.startswith("data: ") for block in blocks)
    data = [block.removeprefix("data: ") for block in blocks]
    return [item if item == "[DONE]" else json.loads(item) for item in data]
