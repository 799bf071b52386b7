"""Bringing the choices of one request together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rllm.api.answer.logprobs import TextOffsets
from rllm.engine.types import Event, FinishReason, Timings, TokenLogprob, Usage
from rllm.errors import EngineError
from rllm.serving.stream import Stream

Batch = tuple[int, list[Event]]
"""Index of a choice, and what has come for it."""


async def merge(streams: Sequence[Stream]) -> AsyncGenerator[Batch, None]:
    """What arrives, as it arrives. Ends when every stream has ended; the first error ends all.

    One stream, the usual case, is read without further tasks. Nothing piles up here: a slow reader leaves
    it in the mailboxes.
    """
    if len(streams) == 1:
        async for events in streams[0]:
            yield 0, events
        return
    waiting = {_next(stream): index for index, stream in enumerate(streams)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=waiting.__getitem__):
                index = waiting.pop(task)
                events = task.result()
                if events:
                    waiting[_next(streams[index])] = index
                    yield index, events
    finally:
        for task in waiting:
            task.cancel()


def _next(stream: Stream) -> asyncio.Task[list[Event]]:
    async def read() -> list[Event]:
        async for events in stream:
            return events
        return []

    return asyncio.create_task(read())


@dataclass(slots=True)
class Choice:
    """What is known about one choice so far."""

    parts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: FinishReason | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    computed_prompt: int = 0
    tokens: list[int] = field(default_factory=list)
    offsets: TextOffsets = field(default_factory=TextOffsets)
    """Where the tokens begin that log probabilities were reported for."""

    def add(self, event: Event) -> None:
        """
        Raises:
            EngineError: the server gave the request up.
        """
        if event.finish is FinishReason.CANCELLED:
            raise EngineError("the server ended this request before it was complete", code="cancelled")
        self.prompt_logprobs += event.prompt_logprobs
        self.tokens += event.tokens
        if event.usage is not None:
            self.usage, self.timings = event.usage, event.timings
            self.computed_prompt = event.computed_prompt
        if event.finish is not None:
            self.finish = event.finish


def check_complete(choices: Sequence[Choice]) -> None:
    """Every stream has ended; each must have ended with a reason."""
    if any(choice.finish is None for choice in choices):
        raise EngineError("the engine ended this request without a result")


@dataclass(frozen=True, slots=True)
class Totals:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int

    def wire(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


def total_usage(choices: Sequence[Choice], num_per_prompt: int) -> Totals:
    """Each prompt counts once, however many choices it has; cached is what no choice of it computed."""
    prompt = completion = cached = 0
    for start in range(0, len(choices), num_per_prompt):
        usages = [choice.usage for choice in choices[start : start + num_per_prompt] if choice.usage]
        completion += sum(usage.completion_tokens for usage in usages)
        if usages:
            prompt += usages[0].prompt_tokens
            cached += min(usage.cached_tokens for usage in usages)
    return Totals(prompt, completion, cached)


def wire_progress(choice: Choice) -> dict[str, Any] | None:
    """llama-server's ``prompt_progress``; ``processed`` has the cached tokens in it."""
    timings, usage = choice.timings, choice.usage
    if timings is None or usage is None:
        return None
    return {
        "total": usage.prompt_tokens,
        "cache": usage.cached_tokens,
        "processed": usage.prompt_tokens if choice.tokens else choice.computed_prompt,
        "time_ms": _ms(timings.prefill_s),
    }


def wire_timings(choice: Choice) -> dict[str, Any] | None:
    """llama-server's ``timings``, with the time in the queue beside them."""
    timings, usage = choice.timings, choice.usage
    if timings is None or usage is None:
        return None
    computed = usage.prompt_tokens - usage.cached_tokens
    return {
        "cache_n": usage.cached_tokens,
        "queue_ms": _ms(timings.queue_s),
        "prompt_n": computed,
        "prompt_ms": _ms(timings.prefill_s),
        "prompt_per_second": _rate(computed, timings.prefill_s),
        "predicted_n": usage.completion_tokens,
        "predicted_ms": _ms(timings.decode_s),
        "predicted_per_second": _rate(usage.completion_tokens, timings.decode_s),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 3) if seconds > 0 else 0.0
