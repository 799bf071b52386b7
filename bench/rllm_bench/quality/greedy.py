"""Greedy agreement: how many tokens a variant writes before it leaves the reference's text.

Until the first difference both have read the same tokens. So a variant need not generate: it
reads prompt and reference text at once, and the first place where its most likely token is not
the reference's is where its own greedy text would have parted. What batching alone does to this
is measured the same way: the reference reads its own text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rllm_bench.quality.model import LogitsModel, stretch
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


def continuations(
    model: LogitsModel, prompts: Sequence[Sequence[int]], max_tokens: int, progress: Progress
) -> list[Continuation]:
    """Greedy texts, one prompt at a time, as a server with one request would write them."""
    out = []
    for index, prompt in enumerate(prompts):
        out.append(Continuation(tuple(prompt), tuple(generate(model, prompt, max_tokens))))
        progress(index + 1, len(prompts))
    return out


def generate(
    model: LogitsModel,
    prompt: Sequence[int],
    max_tokens: int,
    stop: Callable[[list[int]], bool] = lambda _: False,
) -> list[int]:
    """The greedy text after ``prompt``, at least one token; ends with the end token, if that is drawn."""
    model.clear()
    token = int(_most_likely(model, prompt, len(prompt) - 1)[-1])
    written = [token]
    one = np.ones(1, bool)
    while len(written) < max_tokens and not model.is_end(token) and not stop(written):
        position = len(prompt) + len(written) - 1
        token = int(model.logits(stretch(np.array([token], np.int32), position, 0, one)).argmax())
        written.append(token)
    return written


def agreement(model: LogitsModel, texts: Sequence[Continuation], progress: Progress) -> Agreement:
    """Where ``model`` leaves each of the reference's texts."""
    differences: list[int | None] = []
    for index, text in enumerate(texts):
        model.clear()
        chosen = _most_likely(model, text.prompt + text.tokens[:-1], len(text.prompt) - 1)
        differs = np.flatnonzero(chosen != np.array(text.tokens))
        differences.append(int(differs[0]) if len(differs) else None)
        progress(index + 1, len(texts))
    return Agreement(tuple(differences), tuple(len(text.tokens) for text in texts))


def _most_likely(
    model: LogitsModel, tokens: Sequence[int], first: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The most likely next token after each token from index ``first`` on."""
    seen = np.array(tokens, np.int32)
    wanted = np.arange(len(seen)) >= first
    parts = []
    for start in range(0, len(seen), model.max_batch):
        piece = slice(start, start + model.max_batch)
        parts.append(model.logits(stretch(seen[piece], start, 0, wanted[piece])).argmax(axis=1))
    return np.concatenate(parts)
