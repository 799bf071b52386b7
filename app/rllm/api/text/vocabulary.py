"""What the HTTP layer wants to know about a vocabulary as a whole, found out once per model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rllm.engine.port import Vocabulary
from rllm.errors import BadRequest


@dataclass(frozen=True, slots=True)
class VocabularyFacts:
    controls: tuple[str, ...]
    """The texts of its control tokens."""
    longest_piece: int
    """Bytes. Text of more than this times N bytes cannot fit in N tokens."""
    beginning: tuple[int, ...]
    """What the model wants before a text (BOS), if anything."""


def study(vocabulary: Vocabulary) -> VocabularyFacts:
    """Walks through the whole vocabulary: tenths of a second, so not on the event loop."""
    texts = []
    longest = 1
    for token in range(vocabulary.size):
        piece = vocabulary.piece(token)
        if piece:
            longest = max(longest, len(piece))
        else:
            texts.append(vocabulary.detokenize([token], special=True))
    longest = max(longest, *(len(text.encode()) for text in texts), 1)
    return VocabularyFacts(tuple(texts), longest, _beginning(vocabulary))


def _beginning(vocabulary: Vocabulary) -> tuple[int, ...]:
    """The empty text with special tokens is BOS and EOS, as far as the model wants them."""
    plain = vocabulary.tokenize("", add_special=False, parse_special=False)
    special = vocabulary.tokenize("", add_special=True, parse_special=False)
    if plain or not special:
        return ()
    return tuple(
        token for token in special if token not in vocabulary.end_tokens or _is_bos(vocabulary, token)
    )


def _is_bos(vocabulary: Vocabulary, token: int) -> bool:
    return bool(vocabulary.bos_text) and vocabulary.detokenize([token], special=True) == vocabulary.bos_text


def token_bytes(vocabulary: Vocabulary, token: int) -> bytes:
    """A token as bytes, control tokens as their text."""
    return vocabulary.piece(token) or vocabulary.detokenize([token], special=True).encode()


def token_text(vocabulary: Vocabulary, token: int) -> str:
    """Parts of a character become U+FFFD, as OpenAI does it; the bytes are beside it."""
    return token_bytes(vocabulary, token).decode(errors="replace")


def check_token_ids(tokens: Sequence[int], vocab_size: int, param: str) -> None:
    """
    Raises:
        BadRequest: one is not in the vocabulary.
    """
    if max(tokens, default=0) >= vocab_size or min(tokens, default=0) < 0:
        wrong = next(token for token in tokens if not 0 <= token < vocab_size)
        raise BadRequest(
            f"{param} has token id {wrong}; this model's ids are 0 to {vocab_size - 1}", param=param
        )
