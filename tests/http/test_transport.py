"""What happens before there is a request."""

from __future__ import annotations

import asyncio

import pytest
from http_api import Api

from rllm.api.transport import HttpProtocol


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /health HTTP/1.1\r\nhost:",
        b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\nGET /health HTTP/1.1\r\n",
    ],
)
async def test_a_head_that_does_not_arrive_ends_the_connection(
    api: Api, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(HttpProtocol, "head_timeout_s", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(sent)
    answers = await asyncio.wait_for(reader.read(), 10)
    assert answers.count(b"HTTP/1.1 200") == sent.count(b"\r\n\r\n")
    writer.close()


async def test_a_head_without_end_is_refused(api: Api) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(b"GET /health HTTP/1.1\r\nx: ")
    for _ in range(5):
        writer.write(b"y" * 20_000)
        await writer.drain()
        await asyncio.sleep(0)
    assert b" 400 " in await asyncio.wait_for(reader.readline(), 10)
    writer.close()


async def test_an_idle_connection_is_kept_as_long_as_uvicorn_keeps_it(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two requests there is no head to wait for."""
    monkeypatch.setattr(HttpProtocol, "head_timeout_s", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    for _ in range(2):
        writer.write(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b'{"status":"alive"}'), 10)
        await asyncio.sleep(0.5)
    writer.close()
