"""A load balancer of sixty lines: it asks /health/ready ten times a second and follows the answer, no retries."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType

import aiohttp
from aiohttp import web

_DROPPED = frozenset({"transfer-encoding", "content-length", "connection", "host"})


class Proxy:
    def __init__(self) -> None:
        self.upstreams: set[str] = set()
        self.ready: list[str] = []
        self._turn = 0

    async def __aenter__(self) -> Proxy:
        # A connection of its own for each request: none is left that a server which goes away could close.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        self._http = aiohttp.ClientSession(connector=connector)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watcher
        await self._runner.cleanup()
        await self._http.close()

    async def _watch(self) -> None:
        while True:
            states = {url: await self._is_ready(url) for url in tuple(self.upstreams)}
            self.ready = [url for url, is_ready in states.items() if is_ready]
            await asyncio.sleep(0.1)

    async def _is_ready(self, url: str) -> bool:
        try:
            async with asyncio.timeout(1), self._http.get(url + "/health/ready") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        if not self.ready:
            return web.Response(status=502, text="no upstream is ready")
        self._turn += 1
        upstream = self.ready[self._turn % len(self.ready)]
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _DROPPED}
        url = upstream + request.path_qs
        async with self._http.request(
            request.method, url, headers=headers, data=await request.read()
        ) as source:
            kept = {name: value for name, value in source.headers.items() if name.lower() not in _DROPPED}
            answer = web.StreamResponse(status=source.status, headers=kept)
            await answer.prepare(request)
            async for data in source.content.iter_any():
                await answer.write(data)
            await answer.write_eof()
            return answer
