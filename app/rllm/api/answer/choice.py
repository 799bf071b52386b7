"""The choices of one answer: their events brought together, and turned into parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import msgspec

from rllm.api.answer.parts import PLAIN, CallArguments, CallEnd, End, Machine, Part, Reasoning, Text
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


class Delta(msgspec.Struct, frozen=True, gc=False):
    """What is new in one choice."""

    parts: Sequence[Part]
    """Empty while the engine or the machine holds text back."""
    tokens: Sequence[int]
    """The ids of what was drawn, and below their log probabilities, where those are wanted."""
    logprobs: Sequence[TokenLogprob]
    is_first: bool


class Choice:
    """One choice so far."""

    def __init__(self, index: int, machine: Machine) -> None:
        self.index = index
        self.end: End | None = None
        self.usage: Usage | None = None
        self.timings: Timings | None = None
        self.computed_prompt = 0
        self.tokens: list[int] = []
        self.prompt_logprobs: list[TokenLogprob] = []
        self._machine = machine
        self.reasoning_tokens = 0
        """Those that were drawn inside thoughts."""
        self._text = ""
        self._parts: list[Part] = []
        """Where the machine is not the plain one, which takes all text of a delta at once."""
        self._logprobs: list[TokenLogprob] = []
        self._told = 0
        """Tokens that were in a delta."""
        self._called = False

    @property
    def finish(self) -> FinishReason | None:
        return None if self.end is None else self.end.finish

    def add(self, events: Sequence[Event]) -> bool:
        """Whether there is something to tell: a token, or the end.

        Raises:
            EngineError: the server gave the request up.
        """
        news = False
        for event in events:
            if event.finish is not None:
                self.end = _end(event.finish, event.stop_string)
                news = True
            if event.usage is not None:
                self.usage, self.timings = event.usage, event.timings
                self.computed_prompt = event.computed_prompt
            if event.tokens:
                self.tokens += event.tokens
                news = True
            if self._machine is PLAIN:
                self._text += event.text
            else:
                self._take_apart(event)
            if event.logprobs:
                self._logprobs += event.logprobs
            if event.prompt_logprobs:
                self.prompt_logprobs += event.prompt_logprobs
        return news

    def _take_apart(self, event: Event) -> None:
        if self._machine.is_thinking:
            self.reasoning_tokens += len(event.tokens)
        if event.text:
            self._parts += self._machine.parts(event.text)

    def delta(self, interval: int = 1) -> Delta | None:
        """What was added since the last one; None while it is fewer than ``interval`` tokens.

        Neither the first token nor the end ever waits.
        """
        told = self._told
        if told and self.end is None and len(self.tokens) - told < interval:
            return None
        return self.rest()

    def rest(self) -> Delta:
        """What was added since the last delta, however little."""
        told = self._told
        parts = self._machine.parts(self._text) if self._machine is PLAIN else _joined(self._parts)
        if self.end is not None:
            parts = (*parts, *self._machine.rest())
        if self._machine is not PLAIN:
            self._called |= any(type(part) is CallEnd for part in parts)
        if self.end is not None:
            self.end = End(self.end.finish, self.end.stop_string, self._called)
            parts = (*parts, self.end)
        delta = Delta(parts, self.tokens[told:], self._logprobs, not told)
        self._text, self._parts, self._logprobs, self._told = "", [], [], len(self.tokens)
        return delta


def _joined(parts: Sequence[Part]) -> Sequence[Part]:
    """With pieces of the same text, or of the same call's arguments, in one."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if isinstance(part, Text) and isinstance(last, Text):
            joined[-1] = Text(last.text + part.text)
        elif isinstance(part, Reasoning) and isinstance(last, Reasoning):
            joined[-1] = Reasoning(last.text + part.text)
        elif isinstance(part, CallArguments) and isinstance(last, CallArguments) and part.index == last.index:
            joined[-1] = CallArguments(part.index, last.text + part.text)
        else:
            joined.append(part)
    return joined


def _end(finish: FinishReason, stop_string: str | None) -> End:
    if finish is FinishReason.CANCELLED:
        raise EngineError("the server ended this request before it was complete", code="cancelled")
    return End(finish, stop_string)


def check_complete(choices: Sequence[Choice]) -> None:
    """Every stream has ended; each must have ended with a reason."""
    if any(choice.end is None for choice in choices):
        raise EngineError("the engine ended this request without a result")


class Totals(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int = 0
    """Of the completion's."""


def total_usage(choices: Sequence[Choice], num_per_prompt: int) -> Totals:
    """Each prompt counts once, however many choices it has; cached is what no choice of it computed."""
    prompt = completion = cached = 0
    for start in range(0, len(choices), num_per_prompt):
        usages = [choice.usage for choice in choices[start : start + num_per_prompt] if choice.usage]
        completion += sum(usage.completion_tokens for usage in usages)
        if usages:
            prompt += usages[0].prompt_tokens
            cached += min(usage.cached_tokens for usage in usages)
    reasoning = sum(choice.reasoning_tokens for choice in choices)
    return Totals(prompt, completion, cached, reasoning)
