"""A streamed answer: batches of events in, chunks out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from starlette.types import Send

from rllm.api.answer.answers import chunks_of, echoed_logprobs, prompt_ids, wire_logprobs
from rllm.api.answer.chunks import DONE, Extras, error_event
from rllm.api.answer.collect import (
    Batch,
    Choice,
    Totals,
    check_complete,
    total_usage,
    wire_progress,
    wire_timings,
)
from rllm.api.answer.convert import Job
from rllm.api.http.errors import answer_of
from rllm.api.http.event_stream import EventStream, event_stream
from rllm.api.settings import ApiSettings
from rllm.engine.types import Event
from rllm.errors import RllmError


class StreamedAnswer:
    """
    The status line waits for the first token as long as a stream may be silent: until then an error is an
    ordinary HTTP error. Later it is an event, and there is no [DONE].
    """

    def __init__(self, job: Job, choices: Sequence[Choice], batches: AsyncIterator[Batch]) -> None:
        self._job = job
        self._choices = choices
        self._batches = batches
        self._chunks = chunks_of(job)
        self._unechoed = set(range(len(choices))) if job.echoes_logprobs else set()
        """Whose prompt is still to be repeated."""
        self._has_extras = job.returns_ids or job.continuous_usage or job.timings_per_token
        self._gathered: list[list[Event]] = [[] for _ in choices]
        self.error_code: str | None = None
        """Of an error that was sent as an event."""

    async def run(
        self, send: Send, send_body: Send, settings: ApiSettings, check_client: Callable[[], None]
    ) -> None:
        """
        Raises:
            RllmError: before anything was sent.
            ClientTooSlow: a write was stuck.
            Whatever ``check_client`` raises when the batches have ended because the client has gone.
        """
        first = asyncio.ensure_future(self._next())
        try:
            await asyncio.wait({first}, timeout=settings.keepalive_s or None)
            opening = b"".join(
                self._chunks.opening(index, self._of_opening(index)) for index in range(len(self._choices))
            )
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
            await output.write(error_event(answer), last=True)
        else:
            await output.write(self._closing(), last=True)

    async def _next(self) -> Batch | None:
        return await anext(self._batches, None)

    def _encode(self, batch: Batch) -> bytes:
        """The chunks for one batch; empty while the engine holds its text back."""
        index, events = batch
        choice = self._choices[index]
        for event in events:
            choice.add(event)
        if not any(event.tokens or event.finish for event in events):
            return self._progress(index)
        progress = self._progress(index) if len(choice.tokens) == _num_tokens(events) else b""
        if self._job.stream_interval > 1 and not (events := self._gather(index, events)):
            return progress
        text = events[0].text if len(events) == 1 else "".join(event.text for event in events)
        data = progress + (self._echo(index) if index in self._unechoed else b"")
        logprobs = self._logprobs(choice, events)
        extras = self._extras(index, events) if self._has_extras or choice.finish else None
        if choice.finish is not None or text or logprobs is not None or (extras and extras.of_choice):
            finish = None if choice.finish is None else str(choice.finish)
            data += self._chunks.text(index, text, logprobs=logprobs, finish=finish, extras=extras)
        return data

    def _gather(self, index: int, events: Sequence[Event]) -> list[Event]:
        """What is sent now: nothing while it is too little. The first token never waits."""
        waiting = self._gathered[index]
        waiting += events
        choice, count = self._choices[index], _num_tokens(waiting)
        is_first = len(choice.tokens) == count
        if not is_first and choice.finish is None and count < self._job.stream_interval:
            return []
        self._gathered[index] = []
        return waiting

    def _of_opening(self, index: int) -> dict[str, Any]:
        """Of a chat's first chunk, which has no token yet."""
        job = self._job
        if not job.is_chat:
            return {}
        prompt_tokens = sum(len(first.prompt) for first in job.requests[:: job.num_per_prompt])
        usage = {"usage": Totals(prompt_tokens, 0, 0).wire()} if job.continuous_usage else {}
        return {**(prompt_ids(job, index) if index == 0 else {}), **usage}

    def _extras(self, index: int, events: Sequence[Event]) -> Extras:
        job, choice = self._job, self._choices[index]
        of_choice: dict[str, Any] = {}
        of_chunk: dict[str, Any] = {}
        if job.returns_ids:
            ids = [token for event in events for token in event.tokens]
            of_choice["token_ids"] = ids
            if len(ids) == len(choice.tokens) and not job.is_chat:  # the first of them
                of_choice.update(prompt_ids(job, index))
        if job.continuous_usage:
            of_chunk["usage"] = total_usage(self._choices, job.num_per_prompt).wire()
        if (job.timings_per_token or choice.finish) and (timings := wire_timings(choice)):
            of_chunk["timings"] = timings
        return Extras(of_choice, of_chunk)

    def _progress(self, index: int) -> bytes:
        """A part of the prompt was computed."""
        if not self._job.returns_progress or (progress := wire_progress(self._choices[index])) is None:
            return b""
        return self._chunks.text(index, "", extras=Extras({}, {"prompt_progress": progress}))

    def _echo(self, index: int) -> bytes:
        """The prompt with its log probabilities, which are complete when the first token is there."""
        self._unechoed.remove(index)
        logprobs = echoed_logprobs(self._job, index, self._choices[index])
        return self._chunks.text(index, self._job.echo[index], logprobs=logprobs)

    def _logprobs(self, choice: Choice, events: Sequence[Event]) -> dict[str, Any] | None:
        items = [item for event in events for item in event.logprobs]
        return wire_logprobs(self._job, choice, items) if items else None

    def _closing(self) -> bytes:
        if not self._job.include_usage:
            return DONE
        totals = total_usage(self._choices, self._job.num_per_prompt)
        return self._chunks.usage(totals.wire()) + DONE


def _num_tokens(events: Sequence[Event]) -> int:
    return sum(len(event.tokens) for event in events)
