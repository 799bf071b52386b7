"""From text to tokens, off the event loop, and refusing early what can never fit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from rllm.api.control_text import Piece
from rllm.api.fair_threads import FairThreads
from rllm.api.messages import CHATML, MessageRules
from rllm.api.protocol import ChatMessage
from rllm.api.rendering.frames import Load
from rllm.api.rendering.renderer import Renderer
from rllm.api.vocabulary import VocabularyFacts, study
from rllm.engine.port import Vocabulary
from rllm.errors import PromptTooLong, RllmError
from rllm.serving.service import ServedModel

T = TypeVar("T")
_LONG = 32 * 1024
"""Bytes of text that take a tenth of a second to tokenize: shorter ones should not wait for it."""
_TOKEN_BYTES = 4
_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Prepared:
    """What is kept for one vocabulary."""

    vocabulary: Vocabulary
    facts: VocabularyFacts
    rules: MessageRules
    renderer: Renderer


class Tokenizer:
    """A process per model for its chat template, and a few threads for tokens: llama.cpp's tokenizer drops
    the GIL. Lives on the event loop."""

    def __init__(self, threads: FairThreads, *, render_timeout_s: float) -> None:
        self._render_timeout_s = render_timeout_s
        self._threads = threads
        self._prepared: dict[str, _Prepared] = {}
        self._preparing = asyncio.Lock()

    async def close(self) -> None:
        for prepared in self._prepared.values():
            await prepared.renderer.close()

    async def chat(
        self,
        model: ServedModel,
        messages: Sequence[ChatMessage],
        *,
        caller: str,
        variables: Mapping[str, Any] | None = None,
    ) -> tuple[int, ...]:
        """``variables``: what else the template is given, as JSON. ``caller``: see `FairThreads`."""
        prepared = await self._of(model)
        pieces = await self._pieces(model, prepared, messages, variables)
        size = sum(_num_bytes(piece.text) for piece in pieces)
        return await self._run(lambda: self._tokens(model, prepared, pieces), size, caller)

    async def chat_text(
        self,
        model: ServedModel,
        messages: Sequence[ChatMessage],
        *,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt that `chat` tokenizes, without the BOS that the model wants in front."""
        pieces = await self._pieces(model, await self._of(model), messages, variables)
        return "".join(piece.text for piece in pieces)

    async def _pieces(
        self,
        model: ServedModel,
        prepared: _Prepared,
        messages: Sequence[ChatMessage],
        variables: Mapping[str, Any] | None,
    ) -> list[Piece]:
        _refuse_hopeless(sum(_num_bytes(message.text) for message in messages), model, prepared, "messages")
        return await prepared.renderer.render(
            {**(variables or {}), "messages": [prepared.rules.variable(message) for message in messages]},
            without_bos=bool(prepared.facts.beginning),
            max_chars=2 * _most_bytes(model, prepared),  # the template's own text comes on top
        )

    async def text(self, model: ServedModel, text: str, *, param: str, caller: str) -> tuple[int, ...]:
        """A raw prompt: there the caller writes the whole prompt, control tokens included."""
        prepared = await self._of(model)
        return await self._run(lambda: self._text(model, prepared, text, param), _num_bytes(text), caller)

    async def any_text(
        self, model: ServedModel, text: str, *, add_special: bool, parse_special: bool, caller: str
    ) -> tuple[int, ...]:
        """Text that need not fit the context."""
        vocabulary = model.vocabulary
        return await self._run(
            lambda: tuple(vocabulary.tokenize(text, add_special=add_special, parse_special=parse_special)),
            _num_bytes(text),
            caller,
        )

    async def beginning(self, model: ServedModel) -> tuple[int, ...]:
        """What the model wants before a text (BOS), if anything."""
        return (await self._of(model)).facts.beginning

    async def detokenize(self, model: ServedModel, tokens: Sequence[int], *, caller: str) -> str:
        return await self._run(
            lambda: model.vocabulary.detokenize(tokens, special=True), _TOKEN_BYTES * len(tokens), caller
        )

    async def warm(self, model: ServedModel) -> None:
        """Study the vocabulary and compile the template before the first request does it."""
        prepared = await self._of(model)
        try:
            await prepared.renderer.prepare()
        except RllmError as error:
            _logger.error("model %s: %s", model.id, error)

    async def _run(self, job: Callable[[], T], size: int, caller: str) -> T:
        """``size``: bytes of text."""
        return await self._threads.run(job, caller=caller, is_long=size > _LONG)

    async def _of(self, model: ServedModel) -> _Prepared:
        prepared = self._prepared.get(model.id)
        if prepared is None or prepared.vocabulary is not model.vocabulary:
            async with self._preparing:
                return await self._prepare(model)
        return prepared

    async def _prepare(self, model: ServedModel) -> _Prepared:
        old, vocabulary = self._prepared.get(model.id), model.vocabulary
        if old is not None:
            if old.vocabulary is vocabulary:  # somebody else was first
                return old
            await old.renderer.close()
        facts = await self._run(lambda: study(vocabulary), 0, "")
        source = vocabulary.chat_template
        if source is None:
            _logger.warning(
                "model %s has no chat template: ChatML is used for /v1/chat/completions", model.id
            )
            source = CHATML
        load = Load(source, vocabulary.bos_text, vocabulary.eos_text, facts.controls)
        renderer = Renderer(load, timeout_s=self._render_timeout_s, name=model.id)
        prepared = _Prepared(vocabulary, facts, MessageRules(source), renderer)
        self._prepared[model.id] = prepared
        return prepared

    def _tokens(self, model: ServedModel, prepared: _Prepared, pieces: Sequence[Piece]) -> tuple[int, ...]:
        _refuse_hopeless(sum(_num_bytes(piece.text) for piece in pieces), model, prepared, "messages")
        tokens = list(prepared.facts.beginning)
        for piece in pieces:
            tokens += model.vocabulary.tokenize(
                piece.text, add_special=False, parse_special=piece.parse_special
            )
        return tuple(tokens)

    def _text(self, model: ServedModel, prepared: _Prepared, text: str, param: str) -> tuple[int, ...]:
        _refuse_hopeless(_num_bytes(text), model, prepared, param)
        return tuple(model.vocabulary.tokenize(text, add_special=True, parse_special=True))


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
