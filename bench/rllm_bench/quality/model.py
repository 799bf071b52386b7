"""What a quality run needs of a loaded model; `rllm.backends.llama.logits.LogitModel` has it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from rllm_bench.quality.rows import Floats


class Vocabulary(Protocol):
    @property
    def end_tokens(self) -> frozenset[int]: ...

    @property
    def bos_text(self) -> str: ...

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]: ...

    def detokenize(self, tokens: Sequence[int], *, special: bool) -> str: ...


class ModelRows(Protocol):
    @property
    def sequence(self) -> int: ...

    @property
    def logits(self) -> Floats: ...


class GreedyToken(Protocol):
    @property
    def token(self) -> int: ...


class LogitsModel(Protocol):
    """Tokens in, rows of logits out. One thread uses it."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def num_ctx(self) -> int: ...

    @property
    def num_sequences(self) -> int: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    def rows(
        self,
        sequences: Sequence[Sequence[int]],
        positions: Sequence[Sequence[int]] | None = None,
        *,
        tokens_per_step: int = 0,
    ) -> Iterator[ModelRows]: ...

    def greedy(
        self, prompts: Sequence[Sequence[int]], num_tokens: int, *, stop_at_end: bool = True
    ) -> Sequence[Sequence[GreedyToken]]: ...


@dataclass(frozen=True, slots=True)
class Shape:
    """The context that a task wants: sequences side by side, and tokens in each."""

    num_ctx: int
    num_sequences: int = 1


class OpenModel(Protocol):
    def __call__(self, shape: Shape) -> AbstractContextManager[LogitsModel]: ...


def begin_token(vocabulary: Vocabulary) -> int | None:
    """The token that every text begins with, if the vocabulary asks for one."""
    begin = vocabulary.tokenize("", add_special=True, parse_special=False)
    return begin[0] if begin else None


def context_token(vocabulary: Vocabulary) -> int:
    """What stands before a text that is scored from its first token on: begin token, else an end token."""
    marks = vocabulary.tokenize(vocabulary.bos_text, add_special=False, parse_special=True)
    return marks[0] if len(marks) == 1 else min(vocabulary.end_tokens)
