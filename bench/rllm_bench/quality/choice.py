"""The choice task: of two sentences, which one does the model find the more probable?

What counts is less the accuracy than the flips: pairs that a variant decides otherwise than the
reference. Gains and losses cancel in the accuracy ("Accuracy is Not All You Need", arXiv 2407.09141).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from rllm_bench.quality import rows
from rllm_bench.quality.datasets import Pair
from rllm_bench.quality.model import Batch, LogitsModel
from rllm_bench.quality.reference import Progress
from rllm_bench.quality.stats import Interval, mcnemar, wilson


@dataclass(frozen=True, slots=True)
class Flips:
    """One variant's answers against the reference's, on the same items."""

    total: int
    right: int
    right_reference: int
    lost: int
    gained: int

    @property
    def flipped(self) -> int:
        return self.lost + self.gained

    @property
    def p_value(self) -> float:
        return mcnemar(self.lost, self.gained)

    @property
    def accuracy(self) -> float:
        return self.right / self.total

    @property
    def accuracy_interval(self) -> Interval:
        return wilson(self.right, self.total)

    @property
    def flip_interval(self) -> Interval:
        return wilson(self.flipped, self.total)


def flips(answers: Sequence[bool], reference: Sequence[bool]) -> Flips:
    if len(answers) != len(reference):
        raise ValueError(f"{len(answers)} answers against {len(reference)}")
    both = list(zip(answers, reference, strict=True))
    return Flips(
        total=len(both),
        right=sum(answers),
        right_reference=sum(reference),
        lost=sum(theirs and not ours for ours, theirs in both),
        gained=sum(ours and not theirs for ours, theirs in both),
    )


def choose(model: LogitsModel, pairs: Sequence[Pair], pool: Executor, progress: Progress) -> list[bool]:
    """True where the good sentence has the higher probability; a tie is wrong."""
    sentences = [model.tokenize(text) for pair in pairs for text in (pair.good, pair.bad)]
    scores = list(sentence_scores(model, sentences, pool, progress))
    return [scores[i] > scores[i + 1] for i in range(0, len(scores), 2)]


def sentence_scores(
    model: LogitsModel, sentences: Sequence[Sequence[int]], pool: Executor, progress: Progress
) -> Iterator[float]:
    """ln P of each sentence after the model's context token, many sentences in one call."""
    done = 0
    for group in _groups(sentences, model.max_batch, model.num_seqs):
        model.clear()
        nll, _ = rows.token_nll(
            model.logits(_side_by_side(group, model.context_token)), _targets(group), pool
        )
        ends = np.cumsum([len(sentence) for sentence in group])
        yield from (-float(part.sum(dtype=np.float64)) for part in np.split(nll, ends[:-1]))
        done += len(group)
        progress(done, len(sentences))


def _groups(
    sentences: Sequence[Sequence[int]], max_tokens: int, max_count: int
) -> Iterator[list[Sequence[int]]]:
    group: list[Sequence[int]] = []
    for sentence in sentences:
        if not 0 < len(sentence) <= max_tokens:
            raise ValueError(f"a sentence of {len(sentence)} tokens does not fit a batch of {max_tokens}")
        if len(group) == max_count or sum(map(len, group)) + len(sentence) > max_tokens:
            yield group
            group = []
        group.append(sentence)
    if group:
        yield group


def _side_by_side(group: Sequence[Sequence[int]], context_token: int) -> Batch:
    """Every sentence shifted by one behind the context token, each a sequence of its own."""
    lengths = [len(sentence) for sentence in group]
    shifted = [token for sentence in group for token in (context_token, *sentence[:-1])]
    return Batch(
        tokens=np.array(shifted, np.int32),
        positions=np.concatenate([np.arange(length, dtype=np.int32) for length in lengths]),
        seqs=np.repeat(np.arange(len(group), dtype=np.int32), lengths),
        wanted=np.ones(len(shifted), bool),
    )


def _targets(group: Sequence[Sequence[int]]) -> rows.Ints:
    return np.array([token for sentence in group for token in sentence], np.int64)
