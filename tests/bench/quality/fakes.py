"""A small honest model: bytes are tokens, and the next token depends on the last two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

VOCAB = 258
END = 257
BEGIN = 256


@dataclass(frozen=True)
class FakeRows:
    sequence: int
    logits: np.ndarray


@dataclass(frozen=True)
class FakeStep:
    token: int


class FakeVocabulary:
    end_tokens = frozenset({END})
    bos_text = "<begin>"

    def __init__(self, adds_begin: bool) -> None:
        self._adds_begin = adds_begin

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        if parse_special and text == self.bos_text:
            return [BEGIN]
        return [BEGIN] * (add_special and self._adds_begin) + list(text.encode())

    def detokenize(self, tokens: Sequence[int], *, special: bool) -> str:
        return bytes(token for token in tokens if token < 256).decode("utf-8", "replace")


class FakeModel:
    """``noise`` moves every logit: a stand-in for quantization."""

    def __init__(
        self, noise: float = 0.0, num_ctx: int = 64, num_sequences: int = 4, adds_begin: bool = False
    ) -> None:
        self.vocab_size = VOCAB
        self.num_ctx = num_ctx
        self.num_sequences = num_sequences
        self.vocabulary = FakeVocabulary(adds_begin)
        self.calls = 0
        rng = np.random.default_rng(1)
        table = rng.normal(0, 2, (VOCAB, VOCAB)) + noise * np.random.default_rng(2).normal(
            0, 1, (VOCAB, VOCAB)
        )
        self._table = table.astype(np.float32)

    def row(self, tokens: Sequence[int]) -> np.ndarray:
        before = self._table[tokens[-2]] if len(tokens) > 1 else 0
        return (self._table[tokens[-1]] + 0.3 * before).astype(np.float32)

    def rows(
        self,
        sequences: Sequence[Sequence[int]],
        positions: Sequence[Sequence[int]] | None = None,
        *,
        tokens_per_step: int = 0,
    ) -> Iterator[FakeRows]:
        assert len(sequences) <= self.num_sequences
        assert max(map(len, sequences)) <= self.num_ctx
        step = tokens_per_step or 16
        for start in range(0, max(map(len, sequences)), step):
            self.calls += 1
            for own, tokens in enumerate(sequences):
                span = range(start, min(start + step, len(tokens)))
                wanted = [p for p in span if positions is None or p in positions[own]]
                if wanted:
                    yield FakeRows(own, np.stack([self.row(tokens[: p + 1]) for p in wanted]))

    def greedy(
        self, prompts: Sequence[Sequence[int]], num_tokens: int, *, stop_at_end: bool = True
    ) -> list[list[FakeStep]]:
        answers = []
        for prompt in prompts:
            tokens = list(prompt)
            while len(tokens) < len(prompt) + num_tokens and not (stop_at_end and tokens[-1] == END):
                tokens.append(int(self.row(tokens).argmax()))
            answers.append([FakeStep(token) for token in tokens[len(prompt) :]])
        return answers

    def __enter__(self) -> FakeModel:
        return self

    def __exit__(self, *_: object) -> None:
        pass
