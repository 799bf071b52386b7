"""A streamed answer: batches of events in, bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from starlette.types import Send

from rllm.api.answer.choice import Batch, Choice, check_complete
from rllm.api.answer.writer import Writer
from rllm.api.http.errors import answer_of
from rllm.api.http.event_stream import EventStream, event_stream
from rllm.api.settings import ApiSettings
from rllm.errors import RllmError


class StreamedAnswer:
    """
    The status line waits for the first token as long as a stream may be silent: until then an error is an
    ordinary HTTP error. Later it is an event, and the stream has no proper end.
    """

    def __init__(
        self,
        writer: Writer,
        choices: Sequence[Choice],
        batches: AsyncIterator[Batch],
        settings: ApiSettings,
        interval: int,
    ) -> None:
        """``interval``: tokens of a chunk, at least."""
        self._writer = writer
        self._choices = choices
        self._batches = batches
        self._settings = settings
        self._interval = interval
        self.error_code: str | None = None
        """Of an error that was sent as an event."""

    async def run(self, send: Send, send_body: Send, check_client: Callable[[], None]) -> None:
        """
        Raises:
            RllmError: before anything was sent.
            ClientTooSlow: a write was stuck.
            Whatever ``check_client`` raises when the batches have ended because the client has gone.
        """
        settings = self._settings
        first = asyncio.ensure_future(self._next())
        try:
            await asyncio.wait({first}, timeout=settings.keepalive_s or None)
            opening = b"".join(map(self._writer.opening, range(len(self._choices))))
            if first.done():
                batch = first.result()
                if batch is None:
                    check_client()
                    check_complete(self._choices)
                else:
                    opening += self._encode(batch)
            async with event_stream(
                send,
                send_body,
                keepalive_s=settings.keepalive_s,
                slow_s=settings.slow_client_timeout_s,
            ) as output:
                await self._write(opening, first, output, check_client)
        finally:
            first.cancel()
            await asyncio.wait({first})  # it must have left the generator before that is closed

    async def _write(
        self,
        opening: bytes,
        first: asyncio.Future[Batch | None],
        output: EventStream,
        check_client: Callable[[], None],
    ) -> None:
        was_encoded = first.done()
        await output.write(opening)
        try:
            batch = await first
            if batch is not None and not was_encoded and (data := self._encode(batch)):
                await output.write(data)
            async for batch in self._batches:
                if data := self._encode(batch):
                    await output.write(data)
            check_client()
            check_complete(self._choices)
        except RllmError as error:
            answer = answer_of(error)
            self.error_code = answer.code or answer.type
            await output.write(self._writer.error(answer), last=True)
        else:
            await output.write(self._writer.closing(), last=True)

    async def _next(self) -> Batch | None:
        return await anext(self._batches, None)

    def _encode(self, batch: Batch) -> bytes:
        """The bytes for one batch; empty while there is nothing to tell."""
        index, events = batch
        choice = self._choices[index]
        if not choice.add(events):
            return self._writer.progress(choice)
        delta = choice.delta(self._interval)
        return b"" if delta is None else self._writer.delta(choice, delta)
