"""Running one generation: from the accepted request to the last byte, in one coroutine.

That coroutine alone owns the streams, so one ``finally`` cancels them on every way out: finished, failed,
refused, client gone, client too slow, server stopping.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rllm.api.answer.answers import full_answer
from rllm.api.answer.collect import Batch, Choice, check_complete, merge, total_usage
from rllm.api.answer.convert import Job
from rllm.api.answer.streaming import StreamedAnswer
from rllm.api.http.client import Client, ClientGone
from rllm.api.http.event_stream import ClientTooSlow, body_sender
from rllm.api.http.records import RequestRecord
from rllm.api.http.sending import drop_connection, send_json
from rllm.api.settings import ApiSettings
from rllm.serving.service import Service
from rllm.serving.stream import Stream
from rllm.serving.terms import Terms

Prepare = Callable[[], Coroutine[Any, Any, Job]]


class Generation(Response):
    """What a generation route returns: called as a response, it prepares, submits and answers."""

    def __init__(
        self, service: Service, settings: ApiSettings, record: RequestRecord, terms: Terms, prepare: Prepare
    ) -> None:
        self._service = service
        self._settings = settings
        self._record = record
        self._terms = terms
        self._prepare = prepare
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Raises:
            RllmError: before the first byte of an answer.
        """
        async with Client(receive) as client:
            try:
                job = await client.unless_gone(self._prepare())
                await self._run(job, client, scope, send)
            except ClientGone:
                self._record.status = 499
            except ClientTooSlow:
                self._record.status, self._record.error_code = 499, "client_too_slow"
                await drop_connection(scope, client)

    async def _run(self, job: Job, client: Client, scope: Scope, send: Send) -> None:
        record = self._record
        record.model, record.response_id, record.streamed = job.model.id, job.response_id, job.stream
        record.num_choices = len(job.requests)
        accepted = self._service.submit(job.model, job.requests, self._terms)
        streams = accepted.streams
        record.headers += accepted.headers
        record.prompt_tokens = sum(len(first.prompt) for first in job.requests[:: job.num_per_prompt])
        if accepted.model is not job.model:
            job = replace(job, model=accepted.model)
            record.model = job.model.id

        def cancel() -> None:
            for stream in streams:
                stream.cancel()

        client.on_gone(cancel)
        record.prepare_s = record.elapsed_s()
        choices = [Choice() for _ in job.requests]
        try:
            async with aclosing(merge(streams)) as batches:
                if job.stream:
                    await self._stream(job, choices, batches, client, scope, send)
                else:
                    await self._answer(job, choices, batches, client, send)
        finally:
            cancel()
            self._account(job, choices, streams)

    async def _answer(
        self, job: Job, choices: list[Choice], batches: AsyncIterator[Batch], client: Client, send: Send
    ) -> None:
        async for index, events in batches:
            for event in events:
                choices[index].add(event)
                choices[index].parts.append(event.text)
                choices[index].logprobs += event.logprobs
        client.raise_if_gone()
        check_complete(choices)
        if job.reports_prompts:  # as many figures as a long prompt has tokens, many times over
            body = await asyncio.to_thread(lambda: orjson.dumps(full_answer(job, choices)))
        else:
            body = orjson.dumps(full_answer(job, choices))
        await send_json(send, 200, body)

    async def _stream(
        self,
        job: Job,
        choices: list[Choice],
        batches: AsyncIterator[Batch],
        client: Client,
        scope: Scope,
        send: Send,
    ) -> None:
        answer = StreamedAnswer(job, choices, batches)
        try:
            # In a task of its own: here every token would wake two dozen coroutines, down from the server's.
            await asyncio.create_task(
                answer.run(send, body_sender(scope), self._settings, client.raise_if_gone), name="stream"
            )
        finally:
            self._record.error_code = answer.error_code

    def _account(self, job: Job, choices: list[Choice], streams: Sequence[Stream]) -> None:
        totals = total_usage(choices, job.num_per_prompt)
        record = self._record
        first_tokens = [stream.first_token_at for stream in streams if stream.first_token_at is not None]
        record.ttft_s = min(first_tokens) - record.started if first_tokens else None
        record.completion_tokens, record.cached_tokens = totals.completion_tokens, totals.cached_tokens
        record.finish_reasons = tuple(str(choice.finish) for choice in choices if choice.finish)
