"""Greedy agreement: how many tokens a variant writes before it leaves the reference's text.

Until the first difference both have read the same tokens. So a variant need not generate: it
reads prompt and reference text at once, and the first place where its most likely token is not
the reference's is where its own greedy text would have parted. What batching alone does to this
is measured the same way: the reference reads its own text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rllm_bench.quality.model import LogitsModel, Vocabulary, begin_token
from rllm_bench.quality.reference import Progress


@dataclass(frozen=True, slots=True)
class Continuation:
    """What the reference writes after a prompt: up to the limit, or to its end token inclusive."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """For each prompt, the index of the first different token; None: no difference."""

    first_difference: tuple[int | None, ...]
    lengths: tuple[int, ...]

    @property
    def exact(self) -> int:
        return sum(index is None for index in self.first_difference)

    @property
    def median_agreed(self) -> float:
        """Tokens before the first difference, or all of them, in the median prompt."""
        pairs = zip(self.first_difference, self.lengths, strict=True)
        return float(np.median([length if index is None else index for index, length in pairs]))


def question_prompts(vocabulary: Vocabulary, questions: Sequence[str]) -> list[list[int]]:
    """Plain text, so that models without a chat template can be measured alike."""
    begin = begin_token(vocabulary)
    head = [] if begin is None else [begin]
    return [
        head + vocabulary.tokenize(f"Question: {question}\nAnswer:", add_special=False, parse_special=False)
        for question in questions
    ]


def continuations(
    model: LogitsModel, prompts: Sequence[Sequence[int]], max_tokens: int, progress: Progress
) -> list[Continuation]:
    """Greedy texts, one prompt at a time, as a server with one request would write them."""
    out = []
    for index, prompt in enumerate(prompts):
        written = model.greedy([prompt], max_tokens)[0]
        out.append(Continuation(tuple(prompt), tuple(step.token for step in written)))
        progress(index + 1, len(prompts))
    return out


def agreement(model: LogitsModel, texts: Sequence[Continuation], progress: Progress) -> Agreement:
    """Where ``model`` leaves each of the reference's texts."""
    differences: list[int | None] = []
    for index, text in enumerate(texts):
        seen = text.prompt + text.tokens[:-1]
        wanted = range(len(text.prompt) - 1, len(seen))
        chosen = np.concatenate([rows.logits.argmax(axis=1) for rows in model.rows([seen], [wanted])])
        differs = np.flatnonzero(chosen != np.array(text.tokens))
        differences.append(int(differs[0]) if len(differs) else None)
        progress(index + 1, len(texts))
    return Agreement(tuple(differences), tuple(len(text.tokens) for text in texts))
