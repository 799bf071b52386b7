"""What clients may do by the standards of HTTP: offers to upgrade, HTTP/1.0, a side closed early, codings."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from fake_service import Script
from http_api import CHAT, Api, StartApi

from rllm.api.settings import ApiSettings

OFFER = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
URL = b"/v1/chat/completions"


def request(body: object, *, version: bytes = b"1.1", more: bytes = b"", chunked: bool = False) -> bytes:
    data = json.dumps(body).encode()
    head = b"POST %s HTTP/%s\r\nhost: x\r\ncontent-type: application/json\r\n%s" % (URL, version, more)
    if not chunked:
        return head + b"content-length: %d\r\n\r\n%s" % (len(data), data)
    half = len(data) // 2
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (data[:half], data[half:]))
    return head + b"transfer-encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"


class Talk:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    @asynccontextmanager
    async def to(cls, api: Api) -> AsyncIterator[Talk]:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def head(self) -> str:
        return (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)).decode().lower()

    async def answer(self) -> tuple[str, dict[str, object]]:
        """Status line with headers, and the body of a declared length."""
        head = await self.head()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        return head, json.loads(await self.reader.readexactly(length))

    async def to_the_end(self) -> bytes:
        return await asyncio.wait_for(self.reader.read(), 10)


@pytest.mark.parametrize("cut", [None, 60, -30])
@pytest.mark.parametrize("chunked", [False, True])
async def test_an_ignored_offer_to_upgrade_costs_no_body(api: Api, chunked: bool, cut: int | None) -> None:
    """Wherever the request is cut into packets; and the connection serves more, with an offer and without."""
    async with Talk.to(api) as talk:
        sent = request(CHAT, more=OFFER, chunked=chunked)
        for more in (sent, request(CHAT), sent):
            talk.writer.write(more[:cut])
            if cut is not None:
                await talk.writer.drain()
                await asyncio.sleep(0.05)
                talk.writer.write(more[cut:])
            head, body = await talk.answer()
            assert head.startswith("http/1.1 200"), body
            assert body["object"] == "chat.completion"


async def test_offers_may_be_pipelined(api: Api) -> None:
    async with Talk.to(api) as talk:
        talk.writer.write(
            b"GET /health/live HTTP/1.1\r\nhost: x\r\n%s\r\n" % OFFER * 3 + request(CHAT, more=OFFER)
        )
        for _ in range(3):
            assert (await talk.answer())[1] == {"status": "alive"}
        assert (await talk.answer())[1]["object"] == "chat.completion"


async def test_what_follows_an_offer_must_be_http(api: Api) -> None:
    async with Talk.to(api) as talk:
        talk.writer.write(b"GET /health/live HTTP/1.1\r\nhost: x\r\n%s\r\n\x00\x01 no http\r\n\r\n" % OFFER)
        assert b" 400 " in await talk.to_the_end()


@pytest.mark.parametrize("stream", [False, True])
async def test_http_1_0_gets_no_chunks(api: Api, stream: bool) -> None:
    async with Talk.to(api) as talk:
        talk.writer.write(request({**CHAT, "stream": stream}, version=b"1.0"))
        head = await talk.head()
        assert head.startswith("http/1.1 200")
        assert "transfer-encoding" not in head
        assert "connection: close" in head
        body = await talk.to_the_end()
        assert body.endswith(b"data: [DONE]\n\n" if stream else b"}")
        assert not stream or body.startswith(b"data: {")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_half_closed_client_gets_its_answer(api: Api, stream: bool) -> None:
    api.service.script = Script(silence_s=0.5)
    async with Talk.to(api) as talk:
        talk.writer.write(request({**CHAT, "stream": stream}))
        talk.writer.write_eof()
        while (head := await talk.head()).startswith("http/1.1 100"):
            pass
        assert head.startswith("http/1.1 200")
        assert b"chat.completion" in await talk.to_the_end()
        assert (await asyncio.to_thread(api.record)).status == 200


async def test_a_half_closed_client_that_leaves_is_noticed(api: Api) -> None:
    api.service.script = Script(hold_after=0)
    async with Talk.to(api) as talk:
        talk.writer.write(request(CHAT))
        talk.writer.write_eof()
        await talk.head()
        began = asyncio.get_running_loop().time()
        talk.writer.transport.abort()
        assert await asyncio.to_thread(api.service.cancelled.get, timeout=10)
        assert asyncio.get_running_loop().time() - began < 5
        assert (await asyncio.to_thread(api.record)).status == 499


async def test_an_end_before_the_body_is_whole_is_no_request(api: Api) -> None:
    async with Talk.to(api) as talk:
        talk.writer.write(request(CHAT)[:-5])
        talk.writer.write_eof()
        assert await talk.to_the_end() == b""


BODIES: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "identity": bytes,
}


@pytest.mark.parametrize("coding", BODIES)
async def test_a_compressed_body_is_read(shared_api: Api, http: aiohttp.ClientSession, coding: str) -> None:
    headers = {"content-type": "application/json", "content-encoding": coding}
    data = BODIES[coding](json.dumps(CHAT).encode())
    async with http.post(f"{shared_api.url}{URL.decode()}", data=data, headers=headers) as response:
        assert response.status == 200, await response.text()


@pytest.mark.parametrize(
    ("coding", "body", "status", "said"),
    [
        ("br", b"x", 415, "the content-encoding 'br' is not supported: gzip, deflate or none"),
        ("gzip, gzip", b"x", 415, "the content-encoding 'gzip, gzip' is not supported"),
        ("gzip", b"{}", 400, "the body is no gzip, which its content-encoding says it is"),
        ("gzip", gzip.compress(b"{}" * 99)[:-9], 400, "the body ends before its gzip does"),
        ("deflate", b"", 400, "the body ends before its deflate does"),
    ],
)
async def test_a_coding_that_cannot_be_read_is_named(
    shared_api: Api, http: aiohttp.ClientSession, coding: str, body: bytes, status: int, said: str
) -> None:
    headers = {"content-type": "application/json", "content-encoding": coding}
    async with http.post(f"{shared_api.url}{URL.decode()}", data=body, headers=headers) as response:
        assert response.status == status
        assert (await response.json())["error"]["message"].startswith(said)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_the_limit_holds_for_what_is_decoded(
    start_api: StartApi, http: aiohttp.ClientSession, coding: str
) -> None:
    api = start_api(ApiSettings(max_body_bytes=100_000))
    headers = {"content-type": "application/json", "content-encoding": coding}
    bomb = BODIES[coding](json.dumps({**CHAT, "user": "x" * 10_000_000}).encode())
    assert len(bomb) < 20_000
    async with http.post(f"{api.url}{URL.decode()}", data=bomb, headers=headers) as response:
        assert response.status == 413
        assert "at most 100000 bytes" in (await response.json())["error"]["message"]
