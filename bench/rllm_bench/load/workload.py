"""What is asked of a server: prompts as a pure function of a spec, a vocabulary and an index.

A unit is a list of requests that follow one another (the turns of a conversation; usually one). Unit i does
not depend on how many units there are or on which process sends it, so a run that lasts longer only
asks more, and every target is asked the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rllm_bench.records.cells import WorkloadSpec
from rllm_bench.records.vocabulary import Vocabulary

_PREFIX_STREAM = 0x50F1
"""Random stream of shared prefixes; unit i uses stream i, far below."""
_STREAM_BASE = 0x1_0000


class Prompt(msgspec.Struct, frozen=True):
    text: str
    token_ids: list[int] | None
    max_tokens: int
    at_s: float | None = None
    """When it was sent in the trace it comes from."""


Unit = list[Prompt]

# A long-tailed chat mix in the manner of ShareGPT conversations: log-normal, the median prompt some tens of
# tokens and the mean several times that, answers of about 150 tokens. (mean and deviation of the logarithm)
_MIX_PROMPT = (4.2, 1.3)
_MIX_OUTPUT = (5.0, 0.9)


class Workload:
    def __init__(self, spec: WorkloadSpec, vocabulary: Vocabulary) -> None:
        self.spec = spec
        self._vocabulary = vocabulary
        self._file = _read_file(spec) if spec.kind == "file" else []

    def unit(self, index: int) -> Unit:
        spec = self.spec
        if spec.kind == "file":
            return [self._file[index % len(self._file)]]
        rng = np.random.default_rng([spec.seed, _STREAM_BASE + index])
        if spec.kind == "mix":
            return [self._mixed(rng)]
        if spec.kind == "multi-turn":
            return self._conversation(rng)
        prefix = self._prefix(index % spec.prefix_groups) if spec.kind == "shared-prefix" else []
        own = self._draw(rng, max(1, spec.prompt_tokens - len(prefix)))
        return [self._prompt(prefix + own, spec.output_tokens)]

    def units(self, count: int) -> list[Unit]:
        return [self.unit(index) for index in range(count)]

    def digest(self, count: int) -> str:
        """Hash of what the first ``count`` units ask, whatever produced them."""
        return digest(self.units(count))

    def _draw(self, rng: np.random.Generator, count: int) -> list[int]:
        drawn: list[int] = rng.integers(len(self._vocabulary.tokens), size=count).tolist()
        return drawn

    def _prefix(self, group: int) -> list[int]:
        rng = np.random.default_rng([self.spec.seed, _PREFIX_STREAM, group])
        return self._draw(rng, self.spec.prefix_tokens)

    def _mixed(self, rng: np.random.Generator) -> Prompt:
        """Lengths follow the mix; prompt_tokens and output_tokens of the spec are their upper limits."""
        spec = self.spec
        prompt = int(np.clip(rng.lognormal(*_MIX_PROMPT), 4, spec.prompt_tokens))
        output = int(np.clip(rng.lognormal(*_MIX_OUTPUT), 4, spec.output_tokens))
        return self._prompt(self._draw(rng, prompt), output)

    def _conversation(self, rng: np.random.Generator) -> Unit:
        """Turn t repeats all turns before it, with scripted answers: what a server may have cached then
        does not depend on what its model said. prompt_tokens is the length of each user turn."""
        spec = self.spec
        history: list[int] = []
        turns = []
        for _ in range(spec.turns):
            history = history + self._draw(rng, spec.prompt_tokens)
            turns.append(self._prompt(history, spec.output_tokens))
            history = history + self._draw(rng, spec.output_tokens)
        return turns

    def _prompt(self, positions: list[int], max_tokens: int) -> Prompt:
        words = self._vocabulary
        ids = [words.tokens[position] for position in positions] if words.exact else None
        return Prompt(words.text(positions), ids, max_tokens)


def longest(spec: WorkloadSpec) -> int:
    """Most tokens, prompt and output together, that one request of this workload needs."""
    if spec.kind == "multi-turn":
        return spec.turns * (spec.prompt_tokens + spec.output_tokens)
    return spec.prompt_tokens + spec.output_tokens


def digest(units: Iterable[Unit]) -> str:
    hasher = hashlib.sha256()
    for unit in units:
        for prompt in unit:
            hasher.update(msgspec.json.encode([prompt.token_ids, prompt.text, prompt.max_tokens]))
    return hasher.hexdigest()[:16]


def save(path: Path, units: Iterable[Unit]) -> None:
    """One prompt per line, in the form that a `file` workload reads."""
    with path.open("wb") as out:
        for unit in units:
            for prompt in unit:
                fields: dict[str, Any] = {"prompt": prompt.text, "max_tokens": prompt.max_tokens}
                if prompt.token_ids is not None:
                    fields["token_ids"] = prompt.token_ids
                if prompt.at_s is not None:
                    fields["at_s"] = prompt.at_s
                out.write(msgspec.json.encode(fields) + b"\n")


class _Line(msgspec.Struct):
    prompt: str = ""
    token_ids: list[int] | None = None
    max_tokens: int | None = None
    at_s: float | None = None


def _read_file(spec: WorkloadSpec) -> list[Prompt]:
    if spec.path is None:
        raise ValueError("a file workload needs a path")
    data = Path(spec.path).read_bytes()
    if spec.file_sha256 is not None and hashlib.sha256(data).hexdigest() != spec.file_sha256:
        raise ValueError(f"{spec.path} has changed since the run was planned")
    lines = [msgspec.json.decode(line, type=_Line) for line in data.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{spec.path} holds no prompts")
    return [
        Prompt(line.prompt, line.token_ids, line.max_tokens or spec.output_tokens, line.at_s)
        for line in lines
    ]
