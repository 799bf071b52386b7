"""Logits of a model file, for code that measures the file itself: quality, noise floors, tests.

    with LogitModel("models/f16.gguf", num_sequences=2) as model:
        tokens = model.vocabulary.tokenize("The capital of France is", add_special=True, parse_special=False)
        for rows in model.rows([tokens]):
            ...                                  # rows.logits[i] follows position rows.positions[i]
        steps = model.greedy([tokens], 16)[0]    # the greedy continuation with its top-2 gaps

On a CUDA build this module must be imported before numpy.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from rllm.backends.llama import lib
from rllm.backends.llama.batch import Batch
from rllm.backends.llama.context import Context, ContextOptions
from rllm.backends.llama.model import Model
from rllm.backends.llama.vocabulary import LlamaVocabulary

api = lib.api

FloatRows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rows:
    """Logits of some positions of one sequence. ``logits[i]`` predicts the token after ``positions[i]``."""

    sequence: int
    positions: range | list[int]
    logits: FloatRows
    """(len(positions), vocabulary), owned by the receiver."""


@dataclass(frozen=True, slots=True)
class GreedyToken:
    """One step of a greedy continuation."""

    token: int
    runner_up: int
    gap: float
    """Logit of ``token`` minus logit of ``runner_up``: how much noise could not have changed the choice."""


class LogitModel:
    """A model file with one context, used by one thread.

    ``num_sequences`` sequences of up to ``num_ctx`` tokens each may be computed side by side.
    ``batch_size`` tokens go into one llama_decode, computed ``ubatch_size`` at a time (equal by default).
    """

    def __init__(
        self,
        path: Path | str,
        *,
        num_ctx: int = 2048,
        num_sequences: int = 1,
        batch_size: int = 512,
        ubatch_size: int | None = None,
        threads: int = 0,
        gpu_layers: int = -1,
        kv_unified: bool = True,
        cache_type_k: str = "f16",
        cache_type_v: str = "f16",
        flash_attn: str = "auto",
    ) -> None:
        """
        Raises:
            StartError: the file cannot be loaded or the options are refused.
        """
        batch_size = max(batch_size, num_sequences)
        self._model = Model(path, gpu_layers=gpu_layers)
        options = ContextOptions(
            num_cells=num_ctx * num_sequences,
            num_sequences=num_sequences,
            batch_size=batch_size,
            ubatch_size=ubatch_size or batch_size,
            threads=threads,
            kv_unified=kv_unified,
            cache_type_k=cache_type_k,
            cache_type_v=cache_type_v,
            flash_attn=flash_attn,
        )
        try:
            self._context = Context(self._model, options)
        except BaseException:
            self._model.close()
            raise
        self._batch = Batch(self._context.batch_size, num_sequences)
        self.num_ctx = num_ctx
        self.num_sequences = num_sequences
        self.vocabulary = LlamaVocabulary(self._model)
        self.vocab_size = self._model.vocab_size

    def rows(
        self,
        sequences: Sequence[Sequence[int]],
        positions: Sequence[Sequence[int]] | None = None,
        *,
        tokens_per_step: int = 0,
    ) -> Iterator[Rows]:
        """Compute the sequences side by side from empty caches and yield logits as they come.

        ``positions`` names, for each sequence, the positions wanted (default: all). Every llama_decode
        holds up to ``tokens_per_step`` tokens of each unfinished sequence (default: equal shares of the
        batch). 1 makes each call look like a decode step of a server with that many streams.
        Rows of one sequence come in order; memory is bounded by the batch, not by the text.
        """
        self._check(sequences)
        share = max(1, self._context.batch_size // max(1, len(sequences)))
        step = min(tokens_per_step or share, share)
        wanted = None if positions is None else [frozenset(own) for own in positions]
        self._context.clear()
        for start in range(0, max(map(len, sequences), default=0), step):
            chunks = [
                (i, tokens[start : start + step]) for i, tokens in enumerate(sequences) if start < len(tokens)
            ]
            yield from self._compute(chunks, start, wanted)

    def logits(
        self, sequences: Sequence[Sequence[int]], positions: Sequence[Sequence[int]] | None = None
    ) -> list[FloatRows]:
        """`rows`, gathered into one array per sequence; only for what fits memory."""
        parts: list[list[FloatRows]] = [[] for _ in sequences]
        for rows in self.rows(sequences, positions):
            parts[rows.sequence].append(rows.logits)
        empty = np.empty((0, self.vocab_size), dtype=np.float32)
        return [np.concatenate(part) if part else empty for part in parts]

    def greedy(
        self, prompts: Sequence[Sequence[int]], num_tokens: int, *, stop_at_end: bool = True
    ) -> list[list[GreedyToken]]:
        """The most likely continuation of each prompt, all decoded in one batch.

        A sequence ends after an end token if ``stop_at_end``, else after ``num_tokens``.
        """
        self._check(prompts, extra=num_tokens)
        answers: list[list[GreedyToken]] = [[] for _ in prompts]
        last = [[len(prompt) - 1] for prompt in prompts]
        current = {rows.sequence: rows.logits[-1] for rows in self.rows(prompts, last)}
        for step in range(num_tokens):
            for i in sorted(current):
                answers[i].append(_greedy_token(current[i]))
                if stop_at_end and answers[i][-1].token in self.vocabulary.end_tokens:
                    del current[i]
            if not current or step == num_tokens - 1:
                break
            current = self._decode_step(
                [(i, answers[i][-1].token, len(prompts[i]) + step) for i in sorted(current)]
            )
        return answers

    def close(self) -> None:
        self._context.close()
        self._model.close()

    def __enter__(self) -> LogitModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check(self, sequences: Sequence[Sequence[int]], extra: int = 0) -> None:
        if len(sequences) > self.num_sequences:
            raise ValueError(f"{len(sequences)} sequences, but num_sequences is {self.num_sequences}")
        longest = max(map(len, sequences), default=0) + extra
        if longest > self.num_ctx:
            raise ValueError(f"{longest} tokens in a context of {self.num_ctx}")
        if not all(sequences):
            raise ValueError("an empty sequence has no logits")

    def _compute(
        self, chunks: list[tuple[int, Sequence[int]]], start: int, wanted: list[frozenset[int]] | None
    ) -> Iterator[Rows]:
        self._batch.clear()
        places: list[tuple[int, range | list[int]]] = []
        for i, tokens in chunks:
            span = range(start, start + len(tokens))
            if wanted is None:
                self._batch.add_with_outputs(i, tokens, start, True)
                places.append((i, span))
            else:
                self._batch.add_with_outputs(i, tokens, start, [position in wanted[i] for position in span])
                places.append((i, [position for position in span if position in wanted[i]]))
        self._decode()
        logits = self._outputs(sum(len(own) for _, own in places))
        begin = 0
        for i, own in places:
            if own:
                yield Rows(i, own, logits[begin : begin + len(own)])
                begin += len(own)

    def _decode_step(self, tokens: list[tuple[int, int, int]]) -> dict[int, FloatRows]:
        self._batch.clear()
        for i, token, position in tokens:
            self._batch.add(i, [token], position, outputs=1)
        self._decode()
        return {i: row for (i, _, _), row in zip(tokens, self._outputs(len(tokens)), strict=True)}

    def _decode(self) -> None:
        code = self._context.decode(self._batch)
        if code != 0:
            raise RuntimeError(f"llama_decode returned {code}")

    def _outputs(self, count: int) -> FloatRows:
        """A copy of the last decode's logits, in the order of the batch."""
        if count == 0:
            return np.empty((0, self.vocab_size), dtype=np.float32)
        pointer = api.llama_get_logits(self._context.pointer)
        size = count * self.vocab_size
        flat = np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (size,))
        return flat.reshape(count, self.vocab_size).copy()


def _greedy_token(row: FloatRows) -> GreedyToken:
    second, first = np.argpartition(row, -2)[-2:]
    if row[second] == row[first]:  # a tie goes to the lower token, as in llama.cpp
        first, second = min(first, second), max(first, second)
    return GreedyToken(int(first), int(second), float(row[first] - row[second]))
