"""Prompts: what a request asks, drawn from a vocabulary, hashed, and kept in files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rllm_bench.records.cells import WorkloadSpec
from rllm_bench.records.vocabulary import Vocabulary

_STREAM_BASE = 0x1_0000
"""Unit i is drawn from the random stream this far up; what units share is drawn from streams below."""


class Prompt(msgspec.Struct, frozen=True):
    text: str
    token_ids: list[int] | None
    max_tokens: int
    at_s: float | None = None
    """When it was sent in the trace it comes from."""
    role: str = ""
    """What it is in its scenario, where that has several."""


Unit = list[Prompt]
"""Requests that follow one another: the turns of a conversation; usually one."""


class Words:
    """Draws prompts of exact length: positions in the vocabulary, each a word of one token."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    @staticmethod
    def rng(spec: WorkloadSpec, index: int) -> np.random.Generator:
        """Of unit ``index``: it does not depend on how many units there are, or on who sends it."""
        return np.random.default_rng([spec.seed, _STREAM_BASE + index])

    def draw(self, rng: np.random.Generator, count: int) -> list[int]:
        drawn: list[int] = rng.integers(len(self._vocabulary.tokens), size=count).tolist()
        return drawn

    def shared(self, spec: WorkloadSpec, *stream: int, count: int) -> list[int]:
        """What many units have in common: the same for the same stream."""
        return self.draw(np.random.default_rng([spec.seed, *stream]), count)

    def prompt(self, positions: Sequence[int], max_tokens: int, role: str = "") -> Prompt:
        words = self._vocabulary
        ids = [words.tokens[position] for position in positions] if words.exact else None
        return Prompt(words.text(list(positions)), ids, max_tokens, role=role)


def digest(units: Iterable[Unit]) -> str:
    """Hash of what is asked, whatever produced it."""
    hasher = hashlib.sha256()
    for unit in units:
        for prompt in unit:
            hasher.update(msgspec.json.encode([prompt.token_ids, prompt.text, prompt.max_tokens]))
    return hasher.hexdigest()[:16]


def save(path: Path, units: Iterable[Unit]) -> None:
    """One prompt per line, in the form that the scenario `file` reads."""
    with path.open("wb") as out:
        for unit in units:
            for prompt in unit:
                fields: dict[str, Any] = {"prompt": prompt.text, "max_tokens": prompt.max_tokens}
                if prompt.token_ids is not None:
                    fields["token_ids"] = prompt.token_ids
                if prompt.at_s is not None:
                    fields["at_s"] = prompt.at_s
                out.write(msgspec.json.encode(fields) + b"\n")
