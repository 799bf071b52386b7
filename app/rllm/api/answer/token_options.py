"""What a request says about single tokens, in the ids of a vocabulary: biases, bans, what may be drawn."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rllm.api.answer.request import Request
from rllm.engine.port import Vocabulary
from rllm.errors import BadRequest


@dataclass(frozen=True, slots=True)
class TokenOptions:
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()


def resolve(request: Request, vocabulary: Vocabulary) -> TokenOptions:
    """
    Raises:
        BadRequest: nothing is left to be drawn.
    """
    biases = tuple(
        (token, bias)
        for key, bias in request.logit_bias
        for token in ((key,) if isinstance(key, int) else _tokens(vocabulary, key))
    )
    words = tuple(word for text in request.bad_words for word in _spellings(vocabulary, text))
    options = TokenOptions(biases, tuple(dict.fromkeys(words)))
    _refuse_silence(request, options, vocabulary)
    return options


def has_texts(request: Request) -> bool:
    """Whether tokenizing, which takes time, is needed."""
    return bool(request.bad_words) or any(isinstance(key, str) for key, _ in request.logit_bias)


def _spellings(vocabulary: Vocabulary, word: str) -> Iterator[tuple[int, ...]]:
    """A word is other tokens where a space is before it."""
    bare = word.lstrip(" ")
    yield from (tuple(_tokens(vocabulary, text)) for text in dict.fromkeys((word, bare, f" {bare}")) if bare)


def _tokens(vocabulary: Vocabulary, text: str) -> list[int]:
    return vocabulary.tokenize(text, add_special=False, parse_special=True)


def _refuse_silence(request: Request, options: TokenOptions, vocabulary: Vocabulary) -> None:
    if not (
        options.logit_bias
        or options.bad_words
        or request.allowed_token_ids
        or request.ignore_eos
        or request.min_tokens
    ):
        return  # nothing is banned
    banned = {token for token, bias in options.logit_bias if bias == -math.inf}
    banned.update(word[0] for word in options.bad_words if len(word) == 1)
    if request.ignore_eos or request.min_tokens:
        banned |= vocabulary.end_tokens
    if request.min_tokens:
        banned.update(request.stop_token_ids)
    allowed = request.allowed_token_ids
    if banned.issuperset(allowed or range(vocabulary.size)):
        param = "allowed_token_ids" if allowed else "logit_bias"
        raise BadRequest("these options leave no token that may be drawn", param=param)
