"""A client that goes away stops the work at once, wherever its request is."""

from __future__ import annotations

import asyncio
import contextlib
import json

import aiohttp
import pytest
from fake_service import Script
from http_api import CHAT, Api, StartApi

from rllm.api.settings import ApiSettings


async def send(api: Api, body: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    data = json.dumps(body).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n%s" % (len(data), data)
    )
    await writer.drain()
    return reader, writer


async def leave(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


async def read_rest(reader: asyncio.StreamReader) -> bytes:
    """The last bytes before the connection ended, one way or the other."""
    rest = b""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1024 * 1024):
            rest = (rest + data)[-1000:]
    return rest


async def wait(event_wait: object) -> None:
    assert await asyncio.to_thread(event_wait, 10)  # type: ignore[arg-type]


@pytest.mark.parametrize("hold_after", [0, 3])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 2])
async def test_leaving_frees_the_engine(api: Api, hold_after: int, stream: bool, n: int) -> None:
    """Before the first token (hold_after 0, as during prefill) and in the middle."""
    api.service.script = Script(hold_after=hold_after)
    reader, writer = await send(api, {**CHAT, "stream": stream, "n": n})
    submitted = [await asyncio.to_thread(api.service.submitted.get, timeout=10) for _ in range(n)]
    if stream and hold_after:
        await reader.readuntil(b'e"},"logprobs"')  # the third token, alone or with others
    await leave(writer)
    cancelled = {await asyncio.to_thread(api.service.cancelled.get, timeout=10) for _ in range(n)}
    assert cancelled == {request.id for request in submitted}
    await wait(api.service.idle.wait)
    record = await asyncio.to_thread(api.record)
    assert record.status == 499
    assert api.no_more_records()


async def test_a_finished_request_cancels_nothing(api: Api, http: aiohttp.ClientSession) -> None:
    for stream in (False, True):
        async with http.post(
            f"{api.url}/v1/chat/completions", json={**CHAT, "stream": stream, "n": 2}
        ) as response:
            await response.read()
    assert api.service.cancelled.empty()


async def test_leaving_while_the_body_is_sent(api: Api) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 100\r\n\r\n{"
    )
    await writer.drain()
    await leave(writer)
    assert (await asyncio.to_thread(api.record)).status == 499
    assert api.service.submitted.empty()


async def test_a_client_that_does_not_read_is_cut(start_api: StartApi) -> None:
    """The answer is longer than what all buffers on the way can hold, so a write gets stuck."""
    api = start_api(ApiSettings(slow_client_timeout_s=0.5))
    api.service.script = Script(repeat_text=1024 * 1024)
    reader, writer = await send(api, {**CHAT, "stream": True, "max_tokens": 400})
    record = await asyncio.to_thread(api.record)
    assert (record.status, record.error_code) == (499, "client_too_slow")
    await wait(api.service.idle.wait)
    assert b"[DONE]" not in await read_rest(reader)
    writer.close()


async def test_silence_is_filled_with_comments(start_api: StartApi) -> None:
    """The status line does not wait for the first token for ever."""
    api = start_api(ApiSettings(keepalive_s=0.1))
    api.service.script = Script(hold_after=0)
    reader, writer = await send(api, {**CHAT, "stream": True})
    assert b" 200 " in await reader.readline()
    await reader.readuntil(b'"role":"assistant"')
    await reader.readuntil(b": keepalive\n\n")
    await reader.readuntil(b": keepalive\n\n")
    await leave(writer)
    await wait(api.service.idle.wait)
