"""From text to tokens, off the event loop, and refusing early what can never fit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from rllm.api.protocol import ChatMessage
from rllm.api.templates import ChatTemplate
from rllm.api.vocabulary import VocabularyFacts, study
from rllm.engine.port import Vocabulary
from rllm.errors import BadRequest, PromptTooLong
from rllm.serving.service import ServedModel

T = TypeVar("T")
_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Prepared:
    """What is kept for one vocabulary. A broken template is an answer too."""

    vocabulary: Vocabulary
    facts: VocabularyFacts
    template: ChatTemplate | BadRequest


class Tokenizer:
    """A few threads for templates and tokenization; llama.cpp's tokenizer drops the GIL."""

    def __init__(self, *, threads: int, render_timeout_s: float) -> None:
        self._render_timeout_s = render_timeout_s
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="rllm-text")
        self._prepared: dict[str, _Prepared] = {}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def chat(self, model: ServedModel, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        return await self._run(lambda: self._chat(model, messages))

    async def text(self, model: ServedModel, text: str, *, param: str) -> tuple[int, ...]:
        """A raw prompt: there the caller writes the whole prompt, control tokens included."""
        return await self._run(lambda: self._text(model, text, param))

    async def any_text(
        self, model: ServedModel, text: str, *, add_special: bool, parse_special: bool
    ) -> tuple[int, ...]:
        """Text that need not fit the context."""
        vocabulary = model.vocabulary
        return await self._run(
            lambda: tuple(vocabulary.tokenize(text, add_special=add_special, parse_special=parse_special))
        )

    async def detokenize(self, model: ServedModel, tokens: Sequence[int]) -> str:
        return await self._run(lambda: model.vocabulary.detokenize(tokens, special=True))

    async def warm(self, model: ServedModel) -> None:
        """Study the vocabulary before the first request does it."""
        await self._run(lambda: self._of(model))

    async def _run(self, job: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, job)

    def _of(self, model: ServedModel) -> _Prepared:
        """Two threads may do the same work the first time; the last one stays."""
        prepared = self._prepared.get(model.id)
        if prepared is None or prepared.vocabulary is not model.vocabulary:
            prepared = _prepare(model)
            self._prepared[model.id] = prepared
        return prepared

    def _chat(self, model: ServedModel, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        prepared = self._of(model)
        if isinstance(prepared.template, BadRequest):
            raise BadRequest(str(prepared.template), code=prepared.template.code)
        _refuse_hopeless(sum(_num_bytes(message.text) for message in messages), model, prepared, "messages")
        limit = 2 * _most_bytes(model, prepared)  # the template's own text comes on top
        pieces = prepared.template.render(
            messages,
            prepared.facts.controls,
            without_bos=bool(prepared.facts.beginning),
            timeout_s=self._render_timeout_s,
            max_chars=limit,
        )
        _refuse_hopeless(sum(_num_bytes(piece.text) for piece in pieces), model, prepared, "messages")
        tokens = list(prepared.facts.beginning)
        for piece in pieces:
            tokens += model.vocabulary.tokenize(
                piece.text, add_special=False, parse_special=piece.parse_special
            )
        return tuple(tokens)

    def _text(self, model: ServedModel, text: str, param: str) -> tuple[int, ...]:
        _refuse_hopeless(_num_bytes(text), model, self._of(model), param)
        return tuple(model.vocabulary.tokenize(text, add_special=True, parse_special=True))


def _prepare(model: ServedModel) -> _Prepared:
    vocabulary = model.vocabulary
    template: ChatTemplate | BadRequest
    try:
        template = ChatTemplate(
            vocabulary.chat_template, bos_text=vocabulary.bos_text, eos_text=vocabulary.eos_text
        )
        if template.is_fallback:
            _logger.warning(
                "model %s has no chat template: ChatML is used for /v1/chat/completions", model.id
            )
    except BadRequest as error:
        _logger.error("model %s: %s", model.id, error)
        template = error
    return _Prepared(vocabulary, study(vocabulary), template)


def _num_bytes(text: str) -> int:
    return len(text.encode())


def _most_bytes(model: ServedModel, prepared: _Prepared) -> int:
    return model.info.ctx_per_slot * prepared.facts.longest_piece


def _refuse_hopeless(num_bytes: int, model: ServedModel, prepared: _Prepared, param: str) -> None:
    most = _most_bytes(model, prepared)
    if num_bytes > most:
        raise PromptTooLong(
            f"{param} has {num_bytes} bytes; this model's context of {model.info.ctx_per_slot} tokens"
            f" can hold {most} at most",
            param=param,
        )
