"""Answering one request: prepare, submit, and everything up to the last byte, in one coroutine.

That coroutine alone owns the streams, so one ``finally`` cancels them on every way out: finished, failed,
refused, client gone, client too slow, server stopping.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rllm.api.answer.choice import Batch, Choice, check_complete, merge, total_usage
from rllm.api.answer.job import Job
from rllm.api.answer.prepare import Preparer
from rllm.api.answer.request import Request
from rllm.api.answer.stream import StreamedAnswer
from rllm.api.answer.writer import NewWriter, Writer
from rllm.api.http.client import Client, ClientGone
from rllm.api.http.event_stream import ClientTooSlow, body_sender
from rllm.api.http.middleware import caller_of, record_of
from rllm.api.http.records import RequestRecord
from rllm.api.http.sending import drop_connection, send_json
from rllm.api.http.terms import terms_of
from rllm.api.settings import ApiSettings
from rllm.serving.service import Service
from rllm.serving.stream import Stream


@dataclass(frozen=True, slots=True)
class Answers:
    """Makes answers, for every door."""

    service: Service
    settings: ApiSettings
    preparer: Preparer

    def to(self, request: Request, new_writer: NewWriter) -> Answer:
        """What a route returns: ``return answers.to(request, writer)``."""
        return Answer(self, request, new_writer)


class Answer(Response):
    """A response that computes itself when it is called."""

    def __init__(self, answers: Answers, request: Request, new_writer: NewWriter) -> None:
        self._answers = answers
        self._request = request
        self._new_writer = new_writer
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Raises:
            RllmError: before the first byte of an answer.
        """
        async with Client(receive) as client:
            try:
                await self._answer(client, scope, send)
            except ClientGone:
                record_of(scope).status = 499
            except ClientTooSlow:
                record = record_of(scope)
                record.status, record.error_code = 499, "client_too_slow"
                await drop_connection(scope, client)

    async def _answer(self, client: Client, scope: Scope, send: Send) -> None:
        streams: list[Stream] = []

        def cancel() -> None:
            for stream in streams:
                stream.cancel()

        client.on_gone(cancel)
        try:
            # Submitted where it was prepared: to come back here wakes every coroutine from the server's down.
            job = await client.unless_gone(self._submit(scope, streams))
            await self._run(job, streams, client, scope, send)
        finally:
            cancel()

    async def _submit(self, scope: Scope, streams: list[Stream]) -> Job:
        """Prepare the request and hand it to the pool, whose streams go into ``streams``."""
        record, request = record_of(scope), self._request
        terms = terms_of(scope, record.client_key, request.stream)
        job = await self._answers.preparer.prepare(request, terms, record, caller_of(scope))
        record.response_id, record.num_choices = job.response_id, len(job.requests)
        accepted = self._answers.service.submit(job.model, job.requests, terms)
        streams += accepted.streams
        if accepted.model is not job.model:
            job = replace(job, model=accepted.model)
        record.model, record.prompt_tokens = job.model.id, job.prompt_tokens
        record.headers += accepted.headers
        record.prepare_s = record.elapsed_s()
        return job

    async def _run(
        self, job: Job, streams: Sequence[Stream], client: Client, scope: Scope, send: Send
    ) -> None:
        choices = [Choice(index, job.new_machine()) for index in range(len(streams))]
        writer = self._new_writer(job, choices)
        try:
            async with aclosing(merge(streams)) as batches:
                if self._request.stream:
                    answer = StreamedAnswer(
                        writer, choices, batches, self._answers.settings, self._request.stream_interval
                    )
                    await _stream(answer, client, scope, send)
                else:
                    await _whole(writer, choices, batches, client, send, job)
        finally:
            _note_end(record_of(scope), job, choices, streams)


async def _stream(answer: StreamedAnswer, client: Client, scope: Scope, send: Send) -> None:
    try:
        # In a task of its own: here every token would wake two dozen coroutines, down from the server's.
        running = answer.run(send, body_sender(scope), client.raise_if_gone)
        await asyncio.create_task(running, name="stream")
    finally:
        record_of(scope).error_code = answer.error_code


async def _whole(
    writer: Writer,
    choices: Sequence[Choice],
    batches: AsyncIterator[Batch],
    client: Client,
    send: Send,
    job: Job,
) -> None:
    async for index, events in batches:
        choices[index].add(events)
    client.raise_if_gone()
    check_complete(choices)
    deltas = [choice.rest() for choice in choices]
    if job.request.num_scored >= 0:  # as many figures as a long prompt has tokens, many times over
        body = await asyncio.to_thread(writer.whole, deltas)
    else:
        body = writer.whole(deltas)
    await send_json(send, 200, body)


def _note_end(record: RequestRecord, job: Job, choices: Sequence[Choice], streams: Sequence[Stream]) -> None:
    totals = total_usage(choices, job.request.n)
    first_tokens = [stream.first_token_at for stream in streams if stream.first_token_at is not None]
    record.ttft_s = min(first_tokens) - record.started if first_tokens else None
    record.completion_tokens, record.cached_tokens = totals.completion_tokens, totals.cached_tokens
    record.finish_reasons = tuple(str(choice.finish) for choice in choices if choice.finish)
