"""A small honest service: a vocabulary of bytes, and answers that follow a script."""

from __future__ import annotations

import asyncio
import queue
import re
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rllm.engine.types import (
    EngineRequest,
    Event,
    FinishReason,
    ModelInfo,
    Timings,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from rllm.errors import EngineError, NotFound, PromptTooLong, RllmError
from rllm.serving.service import Accepted, Health, ServedModel
from rllm.serving.stream import Stream
from rllm.serving.terms import ANYBODY, Terms

CONTROLS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")
ANSWER = "The capital of France is Paris. "


class ByteVocabulary:
    """Token N below 256 is byte N; the control tokens follow. BOS is wanted, EOS is not."""

    def __init__(self, chat_template: str | None = None, controls: Sequence[str] = CONTROLS) -> None:
        self.chat_template = chat_template
        self.bos_text = controls[0]
        self.eos_text = controls[1]
        self.controls = {text: 256 + index for index, text in enumerate(controls)}
        self.end_tokens = frozenset({self.controls[controls[1]], self.controls[controls[-1]]})
        self.size = 256 + len(controls)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        tokens = [256] if add_special else []
        pattern = "|".join(map(re.escape, sorted(self.controls, key=len, reverse=True)))
        for part in re.split(f"({pattern})", text) if parse_special else [text]:
            tokens += [self.controls[part]] if parse_special and part in self.controls else part.encode()
        return tokens

    def piece(self, token: int) -> bytes:
        return bytes([token]) if token < 256 else b""

    def detokenize(self, tokens: Sequence[int], *, special: bool) -> str:
        names = {token: text.encode() for text, token in self.controls.items()}
        parts = [self.piece(token) or (names[token] if special else b"") for token in tokens]
        return b"".join(parts).decode(errors="replace")


@dataclass(frozen=True)
class Script:
    """What becomes of a request. Counts are tokens; one token is one character of the text."""

    text: str = ANSWER * 1000
    stop_after: int | None = None
    """The model ends by itself here."""
    hold_after: int | None = None
    """Nothing comes after so many tokens, until the request is cancelled."""
    fail_after: int | None = None
    fail_with: RllmError | None = None
    """With what; without it as the pool does where the engine gives up."""
    silence_s: float = 0.0
    """Before the first token."""
    tokens_per_step: int = 1
    cached_tokens: int = 0
    repeat_text: int = 1
    """Each step's text comes so many times, to fill buffers."""


def model_info(**changes: object) -> ModelInfo:
    fields = {
        "path": "/secret/path/fake.gguf",
        "description": "fake 1K F32",
        "architecture": "fake",
        "num_params": 1000,
        "size_bytes": 4000,
        "vocab_size": 260,
        "num_ctx_train": 512,
        "slots": 4,
        "num_sequences": 4,
        "ctx_per_slot": 512,
        "kv_cells": 2048,
        "kv_unified": True,
        "kv_bytes": 1,
        "batch_size": 64,
        "device": "cpu",
        "can_reuse_prefix": True,
        "max_scored": 16,
    }
    return ModelInfo(**{**fields, **changes})  # type: ignore[arg-type]


class FakeService:
    """Lives on the server's loop; what tests look at is safe to read from another thread."""

    def __init__(
        self, *, template: str | None = None, names: Iterable[str] = ("fake",), context: int = 512
    ) -> None:
        vocabulary, info = ByteVocabulary(template), model_info(ctx_per_slot=context)
        self._models = [ServedModel(name, (f"{name}-alias",), 1700000000, info, vocabulary) for name in names]
        self.script = Script()
        self.refuse_with: RllmError | None = None
        self.closed_with: RllmError | None = None
        """The same, at the door."""
        self.bug: Exception | None = None
        self.health_now = Health(True, "ok", (("fake-0", "ready"),))
        self.submitted: queue.Queue[EngineRequest] = queue.Queue()
        self.cancelled: queue.Queue[str] = queue.Queue()
        self.active: set[str] = set()
        self.idle = threading.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def models(self) -> list[ServedModel]:
        return self._models

    def model(self, name: str | None) -> ServedModel:
        for model in self._models:
            if name is None or name == model.id or name in model.aliases:
                return model
        raise NotFound(f"no model {name}")

    def num_in_flight(self) -> int:
        return len(self.active)

    def health(self) -> Health:
        return self.health_now

    def check_open(
        self, model: ServedModel, num_requests: int, priority: int, terms: Terms = ANYBODY
    ) -> None:
        if self.closed_with is not None:
            raise self.closed_with

    def submit(self, model: ServedModel, requests: list[EngineRequest], terms: Terms = ANYBODY) -> Accepted:
        if self.bug is not None:
            raise self.bug
        if self.refuse_with is not None:
            raise self.refuse_with
        for request in requests:
            if len(request.prompt) + request.max_tokens > model.info.ctx_per_slot:
                raise PromptTooLong("too long")
        assert len({request.id for request in requests} | self.active) == len(requests) + len(self.active)
        return Accepted([self._start(request) for request in requests], model)

    def _start(self, request: EngineRequest) -> Stream:
        stream = Stream(request.id, self._cancel)
        self.submitted.put(request)
        self.active.add(request.id)
        self.idle.clear()
        task = asyncio.get_running_loop().create_task(self._feed(request, stream))
        self._tasks[request.id] = task
        task.add_done_callback(lambda _: self._ended(request.id))
        return stream

    def _ended(self, request_id: str) -> None:
        self.active.discard(request_id)
        self._tasks.pop(request_id, None)
        if not self.active:
            self.idle.set()

    def _cancel(self, request_id: str) -> None:
        self.cancelled.put(request_id)
        if task := self._tasks.get(request_id):
            task.cancel()

    async def _feed(self, request: EngineRequest, stream: Stream) -> None:
        script = self.script
        if script.silence_s:
            await asyncio.sleep(script.silence_s)
        count = 0
        while True:
            if script.hold_after is not None and count >= script.hold_after:
                await asyncio.Event().wait()
            if script.fail_after is not None and count >= script.fail_after:
                stream.fail(script.fail_with or EngineError("the decode step failed"))
                return
            step = min(script.tokens_per_step, request.max_tokens - count)
            if script.stop_after is not None:
                step = min(step, script.stop_after - count)
            text = script.text[count : count + step]
            count += step
            finish = None
            if count == request.max_tokens:
                finish = FinishReason.LENGTH
            if count == script.stop_after:
                finish = FinishReason.STOP
            stream.put(self._event(request, text, count, finish), time.monotonic())
            if finish is not None:
                return
            await asyncio.sleep(0)

    def _event(self, request: EngineRequest, text: str, count: int, finish: FinishReason | None) -> Event:
        tokens = tuple(text.encode())
        text *= self.script.repeat_text
        reports = bool(finish) or request.reports_steps
        usage = Usage(len(request.prompt), count, self.script.cached_tokens) if reports else None
        num_scored = request.sampling.num_prompt_logprobs
        scores = request.prompt[1:] if num_scored >= 0 and count <= self.script.tokens_per_step else ()
        return Event(
            request_id=request.id,
            text=text,
            tokens=tokens,
            logprobs=tuple(_logprob(token, request.sampling.num_logprobs) for token in tokens)
            if request.sampling.num_logprobs >= 0
            else (),
            finish=finish,
            usage=usage,
            timings=Timings(0.001, 0.002, 0.5) if reports else None,
            prompt_logprobs=tuple(_logprob(token, num_scored) for token in scores),
        )


def _logprob(token: int, num_top: int) -> TokenLogprob:
    return TokenLogprob(token, -0.5, tuple(TopLogprob(rank, -0.5 - rank) for rank in range(num_top)))
