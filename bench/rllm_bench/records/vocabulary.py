"""Words that are one token: the alphabet of synthetic prompts.

A token that is a space and lower-case letters is read back as itself by a BPE or SentencePiece tokenizer,
so a prompt made of such tokens has the same length as ids and as text, on every server.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import msgspec

_WORD = re.compile(r"^[Ġ▁ ]([a-z]{2,12})$")
_NORMAL = 1
_CONTROL = 3
_POOL_SIZE = 4096


class FewWords(ValueError):
    """Hardly any token of this model is a word."""


class Vocabulary(msgspec.Struct, frozen=True):
    """Taken from one model file. ``tokens`` and ``words`` go together; the text of a prompt is the words,
    each with a space before it."""

    tokens: tuple[int, ...]
    words: tuple[str, ...]
    end_tokens: tuple[int, ...] = ()
    """Tokens that end a generation: banned by bias where a server has no ignore_eos."""
    exact: bool = True
    """False: no model file, words only; counts come from the server's usage."""

    def text(self, positions: list[int]) -> str:
        return "".join(f" {self.words[position]}" for position in positions)

    @property
    def digest(self) -> str:
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]


def from_gguf(path: Path) -> Vocabulary:
    """The lowest-numbered one-token words, which are the most frequent ones.

    Raises:
        FewWords: prompts of them would be the same few words over and over.
    """
    from gguf import GGUFReader

    reader = GGUFReader(path)
    pieces = reader.fields["tokenizer.ggml.tokens"]
    kinds = reader.fields["tokenizer.ggml.token_type"]
    ends = _end_tokens(reader)
    tokens, words = [], []
    for token, part in enumerate(pieces.data):
        if int(kinds.parts[kinds.data[token]][0]) == _NORMAL:
            match = _WORD.match(bytes(pieces.parts[part]).decode("utf-8", "replace"))
            if match:
                tokens.append(token)
                words.append(match.group(1))
        if len(tokens) == _POOL_SIZE:
            break
    if len(tokens) < 64:
        raise FewWords(f"{path}: only {len(tokens)} one-token words in its vocabulary")
    return Vocabulary(tuple(tokens), tuple(words), tuple(sorted(ends)))


def _end_tokens(reader: object) -> set[int]:
    fields = reader.fields  # type: ignore[attr-defined]  # gguf ships no types
    names = ("eos", "eot", "eom")
    found = {
        int(fields[key].parts[fields[key].data[0]][0])
        for key in (f"tokenizer.ggml.{name}_token_id" for name in names)
        if key in fields
    }
    pieces, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    usual = {b"<|im_end|>", b"<|endoftext|>", b"<|eot_id|>", b"<|end_of_text|>", b"</s>", b"<end_of_turn>"}
    for token in range(min(len(pieces.data), 512)):
        if (
            int(kinds.parts[kinds.data[token]][0]) == _CONTROL
            and bytes(pieces.parts[pieces.data[token]]) in usual
        ):
            found.add(token)
    return found


def plain_words() -> Vocabulary:
    """For a server whose model file we do not have: pronounceable words, about one to three tokens each."""
    starts = list("bdfgklmnprstvz")
    ends = ["ab", "al", "an", "ar", "ed", "el", "en", "er", "il", "in", "ir", "on", "or", "um"]
    words = tuple(a + b + c for a in starts for b in ends for c in ("", "a", "ing"))
    return Vocabulary(tuple(range(len(words))), words, exact=False)
