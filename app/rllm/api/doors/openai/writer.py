"""The bytes of OpenAI's answers: what chats and completions have in common.

Everything that does not change during a stream is encoded once; a token costs one JSON string.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson

from rllm.api.answer.choice import Choice, Delta, total_usage
from rllm.api.answer.job import Job
from rllm.api.answer.parts import End, Part, Text
from rllm.api.doors.openai import figures
from rllm.api.doors.openai.logprobs import Shape
from rllm.api.doors.openai.wire import GenerationRequest
from rllm.api.http.errors import ErrorAnswer
from rllm.api.text.vocabulary import token_bytes
from rllm.engine.types import TokenLogprob

_DONE = b"data: [DONE]\n\n"
_MARK = "\u0000text\u0000"
_ENCODED_MARK = orjson.dumps(_MARK)
_NOTHING: dict[str, Any] = {}


def sse(data: Any) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


class OpenAiWriter:
    """See `rllm.api.answer.writer.Writer`. What a part looks like is each door's own."""

    def __init__(self, wire: GenerationRequest, kind: str, job: Job, choices: Sequence[Choice]) -> None:
        """``kind``: OpenAI's name of the object that is sent."""
        self._job = job
        self._choices = choices
        self._wire = wire
        self._head = figures.head(job, kind)
        vocabulary = job.model.vocabulary
        self._shape = Shape(
            vocabulary,
            as_ids=bool(wire.return_tokens_as_token_ids),
            added=vocabulary.piece if job.request.skip_special_tokens else partial(token_bytes, vocabulary),
        )
        self._null_usage: dict[str, Any] = {"usage": None} if wire.include_usage else {}
        self._is_plain = not (
            job.request.num_logprobs >= 0 or wire.return_token_ids or job.request.reports_steps
        )
        """A chunk has text and nothing else."""
        self._around = [self._split(choice.index) for choice in choices] if job.request.stream else []

    # What each door has in its own shape.

    def _body(self, index: int, part: Part) -> dict[str, Any] | None:
        """A part as a chunk's choice. None: it is not shown."""
        raise NotImplementedError

    def _empty(self, index: int) -> dict[str, Any]:
        """A chunk's choice without a part."""
        raise NotImplementedError

    def _logprobs(self, choice: Choice, items: Sequence[TokenLogprob]) -> dict[str, Any]:
        raise NotImplementedError

    def _first(self, choice: Choice) -> bytes:
        """What comes right before the chunk of the first token."""
        return self.progress(choice)

    def _finish(self, delta: Delta) -> str | None:
        end = delta.parts[-1] if delta.parts else None
        return str(end.finish) if isinstance(end, End) else None

    # The stream.

    def progress(self, choice: Choice) -> bytes:
        if not self._wire.return_progress or (progress := figures.progress(choice)) is None:
            return b""
        return self._chunk(self._empty(choice.index), of_chunk={"prompt_progress": progress})

    def delta(self, choice: Choice, delta: Delta) -> bytes:
        parts = delta.parts
        if self._is_plain:
            if not parts:
                return b""
            if len(parts) == 1 and type(part := parts[0]) is Text:
                before, after = self._around[choice.index]
                return before + orjson.dumps(part.text) + after
        return self._chunks(choice, delta)

    def closing(self) -> bytes:
        if not self._wire.include_usage:
            return _DONE
        return sse({**self._head, "choices": [], "usage": self._usage()}) + _DONE

    def error(self, answer: ErrorAnswer) -> bytes:
        """Typed clients raise on this; no [DONE] follows, because it is not done."""
        return b"data: " + answer.body() + b"\n\n"

    def _chunks(self, choice: Choice, delta: Delta) -> bytes:
        """A chunk per part. The first has log probabilities and ids, the last has the end and the figures."""
        data = self._first(choice) if delta.is_first else b""
        finish = self._finish(delta)
        logprobs = self._logprobs(choice, delta.logprobs) if delta.logprobs else None
        of_choice = self._ids(choice, delta)
        of_chunk = self._figures(choice)
        index = choice.index
        bodies = [body for part in delta.parts if (body := self._body(index, part)) is not None]
        if not bodies and (finish is not None or logprobs is not None or of_choice):
            bodies = [self._empty(index)]
        last = len(bodies) - 1
        for number, body in enumerate(bodies):
            data += self._chunk(
                body,
                logprobs if number == 0 else None,
                finish if number == last else None,
                of_choice if number == 0 else _NOTHING,
                of_chunk if number == last else _NOTHING,
            )
        return data

    def _chunk(
        self,
        body: dict[str, Any],
        logprobs: Any | None = None,
        finish: str | None = None,
        of_choice: dict[str, Any] = _NOTHING,
        of_chunk: dict[str, Any] = _NOTHING,
    ) -> bytes:
        choice = {**body, "logprobs": logprobs, "finish_reason": finish, **of_choice}
        return sse({**self._head, "choices": [choice], **self._null_usage, **of_chunk})

    def _split(self, index: int) -> tuple[bytes, bytes]:
        before, after = self._chunk(self._body(index, Text(_MARK)) or _NOTHING).split(_ENCODED_MARK)
        return before, after

    def _ids(self, choice: Choice, delta: Delta) -> dict[str, Any]:
        return {"token_ids": delta.tokens} if self._wire.return_token_ids else _NOTHING

    def _prompt_ids(self, index: int) -> dict[str, Any]:
        return {"prompt_token_ids": self._job.requests[index].prompt} if self._wire.return_token_ids else {}

    def _figures(self, choice: Choice) -> dict[str, Any]:
        """What a chunk says of the answer so far, where that was asked for, and at the end."""
        found: dict[str, Any] = {}
        if self._wire.continuous_usage:
            found["usage"] = self._usage()
        if (self._wire.timings_per_token or choice.finish) and (timings := figures.timings(choice)):
            found["timings"] = timings
        return found

    def _usage(self) -> dict[str, Any]:
        return figures.usage(total_usage(self._choices, self._job.request.n))

    # The whole.

    def whole(self, deltas: Sequence[Delta]) -> bytes:
        answer = dict(self._head)
        answer["choices"] = [self._choice(*pair) for pair in zip(self._choices, deltas, strict=True)]
        answer["usage"] = self._usage()
        if len(self._choices) == 1 and (timings := figures.timings(self._choices[0])):
            answer["timings"] = timings
        return orjson.dumps(answer | self._of_answer())

    def _choice(self, choice: Choice, delta: Delta) -> dict[str, Any]:
        """A choice as a whole."""
        found: dict[str, Any] = {
            "index": choice.index,
            "logprobs": self._whole_logprobs(choice, delta),
            "finish_reason": self._finish(delta),
        }
        if self._wire.return_token_ids:
            found["token_ids"] = delta.tokens
        return found

    def _whole_logprobs(self, choice: Choice, delta: Delta) -> dict[str, Any] | None:
        if self._job.request.num_logprobs < 0:
            return None
        return self._logprobs(choice, delta.logprobs)

    def _of_answer(self) -> dict[str, Any]:
        """What is said once, beside the choices."""
        return {}

    def _prompt_logprobs(self, choice: Choice) -> dict[str, Any]:
        """vLLM's field, where it was asked for."""
        num = self._job.request.num_prompt_logprobs
        if num < 0:
            return {}
        prompt = self._job.requests[choice.index].prompt
        return {"prompt_logprobs": self._shape.prompt_logprobs(prompt, choice.prompt_logprobs, num)}
