"""One streamed request, timed. Never retries: a failure is a result."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from rllm_bench.load.prompts import Prompt
from rllm_bench.load.sse import Choice, Chunk, EventReader, Usage
from rllm_bench.records.cells import PromptFormat, RequestRecord, UsageSource


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how a server is asked."""

    base_url: str
    model: str
    prompt_format: PromptFormat = "ids"
    """ids, text: /v1/completions. chat: /v1/chat/completions with the text as one user message."""
    body: dict[str, Any] = {}
    """Further fields of every request: sampling, ignore_eos."""
    headers: dict[str, str] = {}
    needs_usage: bool = True
    """False for a server known to send none in streams; counts are then inferred and marked."""

    @property
    def url(self) -> str:
        path = "chat/completions" if self.prompt_format == "chat" else "completions"
        return f"{self.base_url.rstrip('/')}/v1/{path}"

    def payload(self, prompt: Prompt) -> bytes:
        fields = {
            "model": self.model,
            "max_tokens": prompt.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.body,
        }
        if self.prompt_format == "chat":
            fields["messages"] = [{"role": "user", "content": prompt.text.strip()}]
        elif self.prompt_format == "ids" and prompt.token_ids is not None:
            fields["prompt"] = prompt.token_ids
        else:
            fields["prompt"] = prompt.text
        return msgspec.json.encode(fields)


@dataclass(slots=True)
class _Stream:
    """What has arrived of one answer. Times are on the monotonic clock."""

    first: float | None = None
    last: float | None = None
    gaps: list[float] = field(default_factory=list)
    finish_reason: str | None = None
    usage: Usage | None = None
    error: str | None = None
    text: list[str] = field(default_factory=list)
    on_content: Callable[[], None] | None = None
    _previous: float = 0.0

    def choice(self, choice: Choice, now: float) -> None:
        content = choice.content
        if content:
            if self.first is None:
                self.first = now
            else:
                self.gaps.append(now - self._previous)
            self._previous = now
            self.last = now
            self.text.append(content)
            if self.on_content is not None:
                self.on_content()
        if choice.finish_reason is not None:
            self.finish_reason = choice.finish_reason
            self.last = now


@dataclass(frozen=True, slots=True)
class Ticket:
    """Which request of the workload this is, and when it was due (monotonic seconds)."""

    index: int
    turn: int
    scheduled: float


class Client:
    """Sends requests of one process. ``epoch`` is the zero of all recorded times."""

    def __init__(
        self, session: aiohttp.ClientSession, endpoint: Endpoint, epoch: float, process: int
    ) -> None:
        self._session = session
        self._endpoint = endpoint
        self._epoch = epoch
        self._process = process
        self._headers = {"Content-Type": "application/json", **endpoint.headers}
        self.chunks = 0

    async def send(
        self, prompt: Prompt, ticket: Ticket, timeout_s: float, on_content: Callable[[], None] | None = None
    ) -> RequestRecord:
        """``on_content`` is called with each piece of the answer as it arrives."""
        stream = _Stream(on_content=on_content)
        body = self._endpoint.payload(prompt)
        status, detail = 0, None
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=30)
        sent = time.monotonic()
        try:
            async with self._session.post(
                self._endpoint.url, data=body, headers=self._headers, timeout=timeout
            ) as response:
                status = response.status
                if status != 200:
                    detail = (await response.text())[:300]
                    stream.error = f"http_{status}"
                else:
                    await self._read(response, stream)
        except TimeoutError:
            stream.error = "timeout"
        except aiohttp.ClientConnectorError as failure:
            stream.error, detail = "connect", str(failure)[:300]
        except (aiohttp.ClientError, msgspec.MsgspecError, ConnectionError) as failure:
            stream.error, detail = "stream", f"{type(failure).__name__}: {failure}"[:300]
        return self._record(prompt, ticket, stream, sent, status, detail)

    async def _read(self, response: aiohttp.ClientResponse, stream: _Stream) -> None:
        reader = EventReader()
        while data := await response.content.readany():
            self._take(reader.feed(data), stream)
        self._take(reader.close(), stream)
        if stream.error is None and not reader.done and stream.finish_reason is None:
            stream.error = "stream"  # cut off before its end

    def _take(self, chunks: Iterator[Chunk], stream: _Stream) -> None:
        """All of them arrived now."""
        now = time.monotonic()
        for chunk in chunks:
            if chunk.error is not None:
                stream.error = "stream"
            for choice in chunk.choices or ():
                self.chunks += 1
                stream.choice(choice, now)
            if chunk.usage is not None:
                stream.usage = chunk.usage

    def _record(
        self, prompt: Prompt, ticket: Ticket, stream: _Stream, sent: float, status: int, detail: str | None
    ) -> RequestRecord:
        completion_tokens, source = self._count(prompt, stream)
        error = stream.error
        if error is None and stream.first is None:
            error = "no_tokens"
        if error is None and (source == "none" or (self._endpoint.needs_usage and source != "server")):
            error = "no_usage"
        usage = stream.usage or Usage()
        details = usage.prompt_tokens_details
        return RequestRecord(
            index=ticket.index,
            turn=ticket.turn,
            role=prompt.role,
            process=self._process,
            scheduled_us=self._us(ticket.scheduled),
            sent_us=self._us(sent),
            first_us=None if stream.first is None else self._us(stream.first),
            gaps_us=[round(gap * 1e6) for gap in stream.gaps],
            last_us=None if stream.last is None else self._us(stream.last),
            closed_us=self._us(time.monotonic()),
            status=status,
            finish_reason=stream.finish_reason,
            max_tokens=prompt.max_tokens,
            prompt_length=None if prompt.token_ids is None else len(prompt.token_ids),
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=completion_tokens,
            cached_tokens=details.cached_tokens if details else None,
            usage_source=source,
            error=error,
            error_detail=detail,
            text_hash=hashlib.sha256("".join(stream.text).encode()).hexdigest()[:12] if stream.text else None,
        )

    @staticmethod
    def _count(prompt: Prompt, stream: _Stream) -> tuple[int | None, UsageSource]:
        if stream.usage is not None and stream.usage.completion_tokens is not None:
            return stream.usage.completion_tokens, "server"
        if stream.finish_reason == "length":
            return prompt.max_tokens, "length"
        if stream.first is not None:
            return 1 + len(stream.gaps), "chunks"
        return None, "none"

    def _us(self, moment: float) -> int:
        return round((moment - self._epoch) * 1e6)
