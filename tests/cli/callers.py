"""Clients that keep their own books: what they asked for, what they got, token by token."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.cli.scraped import Scraped
from tests.cli.server import RunningServer

URL = "/v1/completions"


@dataclass
class Books:
    """All that the clients know of the load they made."""

    statuses: Counter[int] = field(default_factory=Counter)
    """499 for those that went away."""
    tokens: int = 0
    """Of complete answers, counted one by one where they were streamed."""
    prompt_tokens: int = 0
    """Of everything that was accepted and was not lost, once for each choice."""
    choices: int = 0
    """Of complete answers."""
    broken: int = 0
    """Streams that ended with an error event."""


class Callers:
    def __init__(self, server: RunningServer, http: aiohttp.ClientSession) -> None:
        self.books = Books()
        self._server = server
        self._http = http
        self._last: Scraped | None = None

    async def scrape(self) -> Scraped:
        async with self._http.get(self._url("/metrics")) as response:
            scraped = Scraped(await response.text())
        if self._last is not None:
            scraped.check_grown_since(self._last)
        self._last = scraped
        return scraped

    async def scrape_until(self, name: str, value: float, **labels: str) -> Scraped:
        """Wait for a metric to be what it must become."""
        return await self._until(lambda scraped: scraped.total(name, **labels) == value)

    async def quiet(self) -> Scraped:
        """Wait until nothing is under way."""
        return await self._until(lambda scraped: scraped.is_quiet)

    async def _until(self, is_there: Callable[[Scraped], bool]) -> Scraped:
        async with asyncio.timeout(30):
            while True:
                scraped = await self.scrape()
                if is_there(scraped):
                    return scraped
                await asyncio.sleep(0.01)

    async def watch(self) -> None:
        """Scrape all the time; every scrape is checked."""
        while True:
            await self.scrape()
            await asyncio.sleep(0.02)

    async def whole(
        self, prompt: int, tokens: int, *, n: int = 1, headers: dict[str, str] | None = None
    ) -> int:
        """An answer in one piece; its status."""
        body = self._body(prompt, tokens, n=n)
        async with self._http.post(self._url(URL), json=body, headers=headers) as response:
            answer = await response.json()
        self.books.statuses[response.status] += 1
        if response.status == 200:
            assert answer["usage"]["completion_tokens"] == n * tokens
            assert answer["usage"]["prompt_tokens"] == prompt
            self._complete(prompt, n * tokens, n)
        elif response.status == 504:  # it was computed, in vain
            self.books.prompt_tokens += n * prompt
        return response.status

    async def begin(self, prompt: int, tokens: int) -> aiohttp.ClientResponse:
        """A stream whose first token is there."""
        body = self._body(prompt, tokens, stream=True, logprobs=0)
        response = await self._http.post(self._url(URL), json=body)
        assert response.status == 200
        await response.content.readuntil(b"\n\n")
        return response

    async def streamed(self, prompt: int, tokens: int) -> None:
        """A stream read to its end."""
        body = self._body(prompt, tokens, stream=True, logprobs=0, stream_options={"include_usage": True})
        async with self._http.post(self._url(URL), json=body) as response:
            chunks = _data(await response.text())
        counted = sum(len(c["choices"][0]["logprobs"]["tokens"]) for c in chunks if _has_logprobs(c))
        usage = chunks[-1]["usage"]
        assert (counted, usage["prompt_tokens"]) == (usage["completion_tokens"], prompt)
        self.books.statuses[response.status] += 1
        self._complete(prompt, counted, 1)

    def leave(self, response: aiohttp.ClientResponse, prompt: int) -> None:
        response.close()
        self.books.statuses[499] += 1
        self.books.prompt_tokens += prompt

    async def hear_the_end(self, response: aiohttp.ClientResponse) -> None:
        """Of a stream that must break off."""
        with suppress(aiohttp.ClientPayloadError):
            text = await response.text()
        assert '"code":"worker_lost"' in text
        assert "[DONE]" not in text
        self.books.statuses[200] += 1
        self.books.broken += 1

    async def refused(self, path: str = URL, headers: dict[str, str] | None = None, **body: Any) -> int:
        async with self._http.post(self._url(path), json=body, headers=headers) as response:
            await response.read()
        assert response.status >= 400
        self.books.statuses[response.status] += 1
        return response.status

    def _complete(self, prompt: int, tokens: int, choices: int) -> None:
        self.books.tokens += tokens
        self.books.prompt_tokens += choices * prompt
        self.books.choices += choices

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.port}{path}"

    def _body(self, prompt: int, tokens: int, **more: Any) -> dict[str, Any]:
        """Prompts are token ids: then nobody can disagree about their number."""
        first = 10 + self.books.statuses.total() % 100
        return {"prompt": [first] * prompt, "max_tokens": tokens, "ignore_eos": True, **more}


def _has_logprobs(chunk: dict[str, Any]) -> bool:
    return bool(chunk["choices"]) and bool(chunk["choices"][0].get("logprobs"))


def _data(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
