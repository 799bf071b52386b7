"""The choice task: of two sentences, which one does the model find the more probable?

What counts is less the accuracy than the flips: pairs that a variant decides otherwise than the
reference. Gains and losses cancel in the accuracy ("Accuracy is Not All You Need", arXiv 2407.09141).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from rllm_bench.figures.stats import Interval
from rllm_bench.quality import rows
from rllm_bench.quality.datasets import Pair
from rllm_bench.quality.model import LogitsModel, context_token
from rllm_bench.quality.reference import Progress
from rllm_bench.quality.stats import mcnemar, wilson


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
    sentences = [
        model.vocabulary.tokenize(text, add_special=False, parse_special=False)
        for pair in pairs
        for text in (pair.good, pair.bad)
    ]
    scores: list[float] = []
    for start in range(0, len(sentences), model.num_sequences):
        scores += sentence_scores(model, sentences[start : start + model.num_sequences], pool)
        progress(len(scores) // 2, len(pairs))
    return [scores[i] > scores[i + 1] for i in range(0, len(scores), 2)]


def sentence_scores(model: LogitsModel, sentences: Sequence[Sequence[int]], pool: Executor) -> list[float]:
    """ln P of each sentence after the model's context token, all computed side by side."""
    head = context_token(model.vocabulary)
    scores, read = [0.0] * len(sentences), [0] * len(sentences)
    for part in model.rows([(head, *sentence[:-1]) for sentence in sentences]):
        own = part.sequence
        targets = sentences[own][read[own] : read[own] + len(part.logits)]
        nll, _ = rows.token_nll(part.logits, np.array(targets, np.int64), pool)
        scores[own] -= float(nll.sum(dtype=np.float64))
        read[own] += len(targets)
    return scores
