"""Tokens and text of one model. Safe to use from several threads, needs no context and no weights."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

from rllm.backends.llama import lib
from rllm.backends.llama.model import Model
from rllm.backends.llama.special_texts import SpecialTexts
from rllm.errors import StartError

api = lib.api

LONG = 16_384
"""Characters. Longer texts are cut: see `special_texts`."""
_UNKNOWN, _CONTROL, _USER_DEFINED, _RSTRIP = 1 << 0, 1 << 3, 1 << 4, 1 << 8  # enum llama_token_attr


class LlamaVocabulary:
    """Implements `rllm.engine.port.Vocabulary`. The model must outlive it; `load_vocabulary` sees to that."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._vocab = ctypes.c_void_p(api.llama_model_get_vocab(model.pointer))
        self._size = model.vocab_size
        self._pieces: list[bytes | None] = [None] * self._size
        self._specials: dict[bool, SpecialTexts] = {}
        self._end_tokens = frozenset(
            token for token in range(self._size) if api.llama_vocab_is_eog(self._vocab, token)
        )
        template = api.llama_model_chat_template(model.pointer, None)
        self._chat_template = template.decode("utf-8", "replace") if template else None
        self._bos_text = self._special_text(api.llama_vocab_bos(self._vocab))
        self._eos_text = self._special_text(api.llama_vocab_eos(self._vocab))

    @property
    def size(self) -> int:
        return self._size

    @property
    def end_tokens(self) -> frozenset[int]:
        return self._end_tokens

    @property
    def chat_template(self) -> str | None:
        return self._chat_template

    @property
    def bos_text(self) -> str:
        return self._bos_text

    @property
    def eos_text(self) -> str:
        return self._eos_text

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        if len(text) <= LONG or (add_special and api.llama_vocab_get_add_eos(self._vocab)):
            return self._tokenize(text, add_special, parse_special)
        tokens: list[int] = []
        for index, part in enumerate(self._special_texts(parse_special).cut(text, LONG)):
            tokens += self._tokenize(part, add_special and index == 0, parse_special)
        return tokens

    def _special_texts(self, with_controls: bool) -> SpecialTexts:
        known = self._specials.get(with_controls)
        if known is None:
            wanted = _USER_DEFINED | (_CONTROL | _UNKNOWN if with_controls else 0)
            texts: dict[str, bool] = {}
            for token in range(self._size):
                attributes = api.llama_vocab_get_attr(self._vocab, token)
                if attributes & wanted:
                    texts[self._special_text(token)] = bool(attributes & _RSTRIP)
            known = self._specials[with_controls] = SpecialTexts(texts)
        return known

    def _tokenize(self, text: str, add_special: bool, parse_special: bool) -> list[int]:
        data = text.encode("utf-8", "replace")  # a lone surrogate becomes "?", as it has no bytes
        if not data and not add_special:
            return []
        size = len(data) + 2
        while True:
            buffer = (ctypes.c_int32 * size)()
            count = api.llama_tokenize(self._vocab, data, len(data), buffer, size, add_special, parse_special)
            if count >= 0:
                return buffer[:count]
            if -count <= size:
                raise OverflowError(f"a text of {len(data)} bytes has too many tokens")
            size = -count

    def load_pieces(self) -> None:
        """Read every piece now (about a microsecond each) and not one by one while requests run."""
        for token in range(self._size):
            self.piece(token)

    def piece(self, token: int) -> bytes:
        if not 0 <= token < self._size:
            raise ValueError(f"token {token} is not in 0..{self._size - 1}")
        known = self._pieces[token]
        if known is None:
            known = self._pieces[token] = self._read_piece(token, special=False)
        return known

    def detokenize(self, tokens: Sequence[int], *, special: bool) -> str:
        """The text of a whole sequence; unlike joined pieces it drops the space some models put in front."""
        for token in tokens:
            if not 0 <= token < self._size:
                raise ValueError(f"token {token} is not in 0..{self._size - 1}")
        source = (ctypes.c_int32 * len(tokens))(*tokens)
        size = 16 + 8 * len(tokens)
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = api.llama_detokenize(self._vocab, source, len(tokens), buffer, size, False, special)
            if count >= 0:
                return buffer.raw[:count].decode("utf-8", "replace")
            size = -count

    def close(self) -> None:
        """Only for a vocabulary from `load_vocabulary`: frees what it loaded."""
        self._model.close()

    def _special_text(self, token: int) -> str:
        if token < 0:
            return ""
        return self._read_piece(token, special=True).decode("utf-8", "replace")

    def _read_piece(self, token: int, *, special: bool) -> bytes:
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            count = api.llama_token_to_piece(self._vocab, token, buffer, size, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            size = -count


def load_vocabulary(path: Path | str, *, hide_gpus: bool = True) -> LlamaVocabulary:
    """The vocabulary alone, without weights.

    With ``hide_gpus`` (and when nothing of llama.cpp was used before) this process never touches a
    GPU: it then cannot load a model onto one either.

    Raises:
        StartError: the file cannot be read, or has no vocabulary.
    """
    lib.initialise(hide_gpus=hide_gpus)
    model = Model(path, vocab_only=True)
    if model.vocab_size == 0:
        model.close()
        raise StartError(f"{path}: has no vocabulary")
    return LlamaVocabulary(model)
