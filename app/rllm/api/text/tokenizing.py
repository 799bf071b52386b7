"""From text to tokens, off the event loop, and refusing early what can never fit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from rllm.api.http.fair_threads import FairThreads
from rllm.api.text.control_text import Piece
from rllm.api.text.formats.generic import UNKNOWN
from rllm.api.text.formats.shapes import AnswerFormat
from rllm.api.text.messages import CHATML, Chat, MessageRules
from rllm.api.text.rendering.frames import Load
from rllm.api.text.rendering.renderer import Renderer
from rllm.api.text.vocabulary import VocabularyFacts, study
from rllm.engine.port import Vocabulary
from rllm.errors import BadRequest, PromptTooLong, RllmError
from rllm.serving.service import ServedModel

T = TypeVar("T")
Prompt = str | tuple[int | str, ...]
"""A text, or token ids with texts between them."""
LONG = 32 * 1024
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


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    tokens: tuple[int, ...]
    form: AnswerFormat
    in_thought: bool
    """The answer begins inside a thought."""
    hidden: Sequence[str]
    """Control texts that the answer shows, because some are marks of ``form``, and a client must not see."""


class Tokenizer:
    """A process per model for its chat template, and a few threads for tokens: llama.cpp's tokenizer drops
    the GIL. Lives on the event loop."""

    def __init__(
        self, threads: FairThreads, *, render_timeout_s: float, trusts_templates: bool = False
    ) -> None:
        """``trusts_templates``: requests may bring their own."""
        self._trusts_templates = trusts_templates
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
        chat: Chat,
        *,
        caller: str,
        may_be_cut: bool = False,
        param: str = "messages",
    ) -> tuple[int, ...]:
        """``may_be_cut``: the prompt need not fit the context. ``caller``: see `FairThreads`. ``param``: what
        the door calls it."""
        prompt = await self.chat_prompt(model, chat, caller=caller, may_be_cut=may_be_cut, param=param)
        return prompt.tokens

    async def chat_prompt(
        self,
        model: ServedModel,
        chat: Chat,
        *,
        caller: str,
        may_be_cut: bool = False,
        param: str = "messages",
    ) -> ChatPrompt:
        """As `chat`, with what is known of the answer."""
        prepared = await self._of(model)
        pieces, form = await self._pieces(model, prepared, chat, may_be_cut, param)
        size = sum(_num_bytes(piece.text) for piece in pieces)
        if not may_be_cut:
            _refuse_hopeless(size, model, prepared, param)
        tokens = await self.run(lambda: _piece_tokens(model.vocabulary, prepared.facts, pieces), size, caller)
        end = pieces[-1].text if pieces else ""
        return ChatPrompt(
            tokens=tokens,
            form=form,
            in_thought=form.reasoning is not None and form.reasoning.is_open(end),
            hidden=prepared.facts.controls if form.has_marks_among(prepared.facts.controls) else (),
        )

    async def chat_text(self, model: ServedModel, chat: Chat) -> str:
        """The prompt that `chat` tokenizes, without the BOS that the model wants in front."""
        pieces, _ = await self._pieces(model, await self._of(model), chat, False, "messages")
        return "".join(piece.text for piece in pieces)

    async def _pieces(
        self,
        model: ServedModel,
        prepared: _Prepared,
        chat: Chat,
        may_be_cut: bool,
        param: str,
    ) -> tuple[list[Piece], AnswerFormat]:
        if not may_be_cut:
            num_bytes = sum(_num_bytes(message.text) for message in chat.messages)
            _refuse_hopeless(num_bytes, model, prepared, param)
        rules, renderer = prepared.rules, prepared.renderer
        if chat.template:
            rules, renderer = self._given_template(chat.template, model, prepared.facts)
        try:
            # A template that takes no messages at all is not asked how it writes calls.
            form = await renderer.form() if chat.needs_form else UNKNOWN
            pieces = await renderer.render(
                rules.variables(chat, form),
                without_bos=bool(prepared.facts.beginning),
                continues=chat.continue_final_message,
                max_chars=2 * _most_bytes(model, prepared),  # the template's own text comes on top
            )
            return pieces, form if chat.needs_form else await renderer.form()
        except PromptTooLong as error:
            context = model.info.ctx_per_slot
            message = f"This model's maximum context length is {context} tokens; {error}."
            raise PromptTooLong(message, param=error.param) from None
        finally:
            if renderer is not prepared.renderer:
                await renderer.close()

    def _given_template(
        self, source: str, model: ServedModel, facts: VocabularyFacts
    ) -> tuple[MessageRules, Renderer]:
        """Of one request, in a process of its own: a template is a program."""
        if not self._trusts_templates:
            raise BadRequest(
                "Unsupported parameter: 'chat_template': the operator allows no templates in requests.",
                param="chat_template",
                code="unsupported_parameter",
            )
        return MessageRules(source), self._renderer(source, model, facts)

    async def prompt(
        self,
        model: ServedModel,
        prompt: Prompt,
        *,
        param: str,
        add_special: bool | None,
        caller: str,
        most_bytes: int = 0,
    ) -> tuple[int, ...]:
        """A raw prompt: there the caller writes the whole prompt, control tokens included.

        Args:
            add_special: put BOS in front, where the model wants it. None: unless the text begins with it.
            most_bytes: how long the text may be, where it need not fit the context.
        """
        if not isinstance(prompt, str) and all(isinstance(item, int) for item in prompt):
            return cast(tuple[int, ...], prompt)
        prepared = await self._of(model)
        parts = (prompt,) if isinstance(prompt, str) else prompt
        num_bytes = sum(_num_bytes(part) for part in parts if isinstance(part, str))
        if not most_bytes:
            _refuse_hopeless(num_bytes, model, prepared, param)
        elif num_bytes > most_bytes:
            raise BadRequest(f"{param} may have at most {most_bytes} bytes", param=param)
        return await self.run(lambda: _prompt_tokens(model.vocabulary, parts, add_special), num_bytes, caller)

    async def any_text(
        self, model: ServedModel, text: str, *, add_special: bool, parse_special: bool, caller: str
    ) -> tuple[int, ...]:
        """Text that need not fit the context."""
        vocabulary = model.vocabulary
        return await self.run(
            lambda: tuple(vocabulary.tokenize(text, add_special=add_special, parse_special=parse_special)),
            _num_bytes(text),
            caller,
        )

    async def beginning(self, model: ServedModel) -> tuple[int, ...]:
        """What the model wants before a text (BOS), if anything."""
        return (await self._of(model)).facts.beginning

    async def detokenize(self, model: ServedModel, tokens: Sequence[int], *, caller: str) -> str:
        return await self.run(
            lambda: model.vocabulary.detokenize(tokens, special=True), _TOKEN_BYTES * len(tokens), caller
        )

    async def warm(self, model: ServedModel) -> None:
        """Study the vocabulary and compile the template before the first request does it."""
        prepared = await self._of(model)
        try:
            form = await prepared.renderer.form()
            _logger.info("model %s: tools: %s; reasoning: %s", model.id, form.tools, form.reasoning or "none")
        except RllmError as error:
            _logger.error("model %s: %s", model.id, error)

    async def run(self, job: Callable[[], T], size: int, caller: str) -> T:
        """What ``job`` returns, which tokenizes ``size`` bytes of text."""
        return await self._threads.run(job, caller=caller, is_long=size > LONG)

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
        facts = await self.run(lambda: study(vocabulary), 0, "")
        source = vocabulary.chat_template
        if source is None:
            _logger.warning(
                "model %s has no chat template: ChatML is used for /v1/chat/completions", model.id
            )
            source = CHATML
        renderer = self._renderer(source, model, facts)
        prepared = _Prepared(vocabulary, facts, MessageRules(source), renderer)
        self._prepared[model.id] = prepared
        return prepared

    def _renderer(self, source: str, model: ServedModel, facts: VocabularyFacts) -> Renderer:
        vocabulary = model.vocabulary
        load = Load(source, vocabulary.bos_text, vocabulary.eos_text, facts.controls)
        return Renderer(load, timeout_s=self._render_timeout_s, name=model.id)


def _piece_tokens(vocabulary: Vocabulary, facts: VocabularyFacts, pieces: Sequence[Piece]) -> tuple[int, ...]:
    tokens = list(facts.beginning)
    for piece in pieces:
        tokens += vocabulary.tokenize(piece.text, add_special=False, parse_special=piece.parse_special)
    return tuple(tokens)


def _prompt_tokens(
    vocabulary: Vocabulary, parts: Sequence[int | str], add_special: bool | None
) -> tuple[int, ...]:
    tokens: list[int] = []
    for index, part in enumerate(parts):
        if isinstance(part, int):
            tokens.append(part)
        else:
            adds = index == 0 and add_special is not False
            tokens += vocabulary.tokenize(part, add_special=adds, parse_special=True)
    if add_special is None and _begins_twice(vocabulary, parts[0], tokens):
        del tokens[0]
    if not tokens:  # the empty text, for a model that wants nothing in front: a text begins all the same
        tokens = vocabulary.tokenize(vocabulary.bos_text, add_special=False, parse_special=True)
    return tuple(tokens)


def _begins_twice(vocabulary: Vocabulary, text: int | str, tokens: Sequence[int]) -> bool:
    """The text has BOS itself, and got another."""
    bos = vocabulary.bos_text
    has_bos = isinstance(text, str) and bool(bos) and text.startswith(bos)
    return has_bos and len(tokens) > 1 and tokens[0] == tokens[1]


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
