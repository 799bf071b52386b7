"""A completion's answer: texts, and the prompts that they repeat."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from rllm.api.answer.choice import Choice, Delta
from rllm.api.answer.job import Job
from rllm.api.answer.parts import Part, Text
from rllm.api.answer.writer import NewWriter
from rllm.api.doors.openai.logprobs import TextOffsets
from rllm.api.doors.openai.writer import OpenAiWriter
from rllm.api.doors.openai_completions.wire import CompletionRequest
from rllm.engine.types import TokenLogprob


def from_parts(wire: CompletionRequest) -> NewWriter:
    return partial(CompletionWriter, wire)


class CompletionWriter(OpenAiWriter):
    """Whatever a machine would make of it, a completion is text."""

    def __init__(self, wire: CompletionRequest, job: Job, choices: Sequence[Choice]) -> None:
        super().__init__(wire, "text_completion", job, choices)
        self._offsets = [TextOffsets() for _ in choices]
        """Where the tokens begin that log probabilities were reported for."""
        self._scores_echo = bool(job.echo) and job.request.num_logprobs >= 0
        """Prompts are repeated together with their log probabilities."""

    def opening(self, index: int) -> bytes:
        """Nothing is said before the first token, unless the prompt is to be repeated as mere text."""
        if not self._job.echo or self._scores_echo:
            return b""
        return self._chunk(self._text(index, self._job.echo[index]))

    def _first(self, choice: Choice) -> bytes:
        """The log probabilities of a prompt are complete when its first token is there."""
        progress = super()._first(choice)
        if not self._scores_echo:
            return progress
        echo = self._text(choice.index, self._job.echo[choice.index])
        return progress + self._chunk(echo, self._echoed_logprobs(choice))

    def _body(self, index: int, part: Part) -> dict[str, Any] | None:
        return self._text(index, part.text) if isinstance(part, Text) else None

    def _empty(self, index: int) -> dict[str, Any]:
        return self._text(index, "")

    def _text(self, index: int, text: str) -> dict[str, Any]:
        return {"index": index, "text": text}

    def _ids(self, choice: Choice, delta: Delta) -> dict[str, Any]:
        ids = super()._ids(choice, delta)
        return {**ids, **self._prompt_ids(choice.index)} if ids and delta.is_first else ids

    def _logprobs(self, choice: Choice, items: Sequence[TokenLogprob]) -> dict[str, Any]:
        return self._shape.completion(items, self._offsets[choice.index])

    def _echoed_logprobs(self, choice: Choice) -> dict[str, Any]:
        """Of the prompt that begins the answer. What follows has its offsets behind it."""
        text = self._job.echo[choice.index]
        self._offsets[choice.index].jump(len(text))
        prompt = self._job.requests[choice.index].prompt
        num_top = self._job.request.num_logprobs
        return self._shape.completion_prompt(prompt, choice.prompt_logprobs, num_top, text)

    def _whole_logprobs(self, choice: Choice, delta: Delta) -> dict[str, Any] | None:
        echoed = self._echoed_logprobs(choice) if self._scores_echo else None
        logprobs = super()._whole_logprobs(choice, delta)
        if echoed is None or logprobs is None:
            return logprobs
        return {name: echoed[name] + values for name, values in logprobs.items()}

    def _choice(self, choice: Choice, delta: Delta) -> dict[str, Any]:
        text = "".join(part.text for part in delta.parts if isinstance(part, Text))
        return {
            **super()._choice(choice, delta),
            "text": (self._job.echo[choice.index] if self._job.echo else "") + text,
            **self._prompt_logprobs(choice),
            **self._prompt_ids(choice.index),
        }
