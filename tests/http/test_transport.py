"""What happens before there is a request."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from fake_service import Script
from http_api import CHAT, Api

from rllm.api.http.transport import HttpProtocol


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


@pytest.mark.parametrize("trailers", [b"a: b\r\n" * 4000, b"x: " + b"y" * 20_000, b""])
async def test_trailers_are_dropped_and_bounded(api: Api, trailers: bytes) -> None:
    """Many small ones or one without end; a few are fine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    body = b'{"messages": [{"role": "user", "content": "hi"}]}'
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(body), body)
    )
    for _ in range(5):
        writer.write(trailers)
        await writer.drain()
    if not trailers:
        writer.write(b"checksum: 1\r\n\r\n")
    status = await asyncio.wait_for(reader.readline(), 10)
    assert (b" 400 " if trailers else b" 200 ") in status
    writer.close()


async def test_the_rest_of_an_answered_request_is_not_read_for_ever(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HttpProtocol, "rest_timeout_s", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(b"GET /health/live HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
    assert b" 200 " in await asyncio.wait_for(reader.readline(), 10)
    with contextlib.suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 10)
    writer.close()


async def test_a_client_that_pipelines_gets_every_answer_in_order(api: Api) -> None:
    paths = [b"/health/live", b"/v1/models", b"/health/live"] * 400
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(b"".join(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path for path in paths))
    for path in paths:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        answer = await reader.readexactly(length)
        assert (b"alive" in answer) == (path == b"/health/live")
    writer.close()


async def test_garbage_behind_a_request_does_not_end_up_in_its_answer(api: Api) -> None:
    api.service.script = Script(hold_after=3)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    data = json.dumps({**CHAT, "stream": True}).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(data), data)
    )
    await reader.readuntil(b"data: ")
    writer.write(b"\x00\x01garbage\r\n\r\n")
    rest = b""
    with contextlib.suppress(ConnectionError):
        while data := await asyncio.wait_for(reader.read(65536), 10):
            rest += data
    assert b" 400 " not in rest
    writer.close()
