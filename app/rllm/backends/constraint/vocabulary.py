"""The tokens of a model, as llguidance wants them."""

from __future__ import annotations

from collections.abc import Sequence

from llguidance import LLTokenizer

from rllm.engine.port import Vocabulary

_SPECIAL = b"\xff"
"""No byte of UTF-8: marks what has a name and no text."""


def tokenizer_of(vocabulary: Vocabulary) -> LLTokenizer:
    """Reads the whole vocabulary: half a second for 49,000 tokens, so once per model.

    Control tokens and those that end an answer are never matched as text, whatever they look like: the text
    of an answer does not hold them.
    """
    return LLTokenizer(_Wrapper(vocabulary), eos_token=sorted(vocabulary.end_tokens))  # type: ignore[arg-type]


class _Wrapper:
    """What `LLTokenizer` asks of a tokenizer."""

    is_tokenizer_wrapper = True
    bos_token_id = None
    special_token_ids: Sequence[int] = ()

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.eos_token_id = min(vocabulary.end_tokens)
        self.tokens = [self._bytes(token) for token in range(vocabulary.size)]
        self._before = self._sentinel()

    def _bytes(self, token: int) -> bytes:
        piece = self._vocabulary.piece(token)
        if piece and token not in self._vocabulary.end_tokens:
            return piece
        return _SPECIAL + self._vocabulary.detokenize([token], special=True).encode()

    def _sentinel(self) -> str:
        """Some vocabularies put a space before every text; then it goes before this, which no token joins."""
        begun = self._vocabulary.tokenize("a", add_special=False, parse_special=False)
        return "" if b"".join(map(self._vocabulary.piece, begun)) == b"a" else "\x01"

    def __call__(self, text: str) -> list[int]:
        """Called by llguidance for forced text, which goes on where the answer stands: no space before it."""
        tokens = self._vocabulary.tokenize(self._before + text, add_special=False, parse_special=False)
        left = sum(len(self._vocabulary.piece(token)) for token in tokens) - len(text.encode())
        first = 0
        while left > 0:
            left -= len(self._vocabulary.piece(tokens[first]))
            first += 1
        return tokens[first:]
