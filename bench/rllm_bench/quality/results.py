"""The results of a run: computed from the stored records, and all that the report reads."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from rllm_bench.quality.choice import Flips
from rllm_bench.quality.files import ModelFile
from rllm_bench.quality.greedy import Agreement
from rllm_bench.quality.importance import MatrixGain
from rllm_bench.quality.metrics import Divergence, Estimate, mean
from rllm_bench.quality.rows import Floats


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked; two runs with the same settings and files give the same figures."""

    num_ctx: int = 512
    num_chunks: int | None = 32
    tasks: tuple[str, ...] = ("divergence", "greedy", "pairs")
    greedy_prompts: int = 100
    greedy_tokens: int = 64
    num_pairs: int | None = None
    num_problems: int = 100
    problem_tokens: int = 256
    threads: int = 0
    gpu_layers: int = -1


class VariantResult(msgspec.Struct, frozen=True, kw_only=True):
    """What is None was not measured."""

    model: ModelFile
    divergence: Divergence | None = None
    ppl: Estimate | None = None
    ppl_ratio: Estimate | None = None
    """Against the reference's exact perplexity; `divergence.ppl_ratio` is against its stored 16-bit form."""
    same_top: Estimate | None = None
    greedy: Agreement | None = None
    pairs: Flips | None = None
    problems: Flips | None = None
    scoring_tps: float | None = None
    """Tokens read per second while scoring; not a figure of serving speed."""


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """The reference against itself: differences no larger than these are noise."""

    storage: Divergence | None = None
    """Exact distributions against their stored 16-bit form."""
    batching: Divergence | None = None
    """Decoding 32 sequences side by side against one at a time."""
    greedy: Agreement | None = None
    pairs: Flips | None = None
    """Sentences scored many at a time against one at a time."""

    @property
    def mean_kld(self) -> float:
        return max((part.kld_mean.value for part in (self.storage, self.batching) if part), default=0.0)


class QualityRun(msgspec.Struct, frozen=True, kw_only=True):
    created: str
    settings: Settings
    data: dict[str, str]
    environment: dict[str, Any]
    reference: VariantResult
    floor: Floor
    variants: list[VariantResult]
    served: list[VariantResult] = []
    """Measured over HTTP: no full distributions, so no divergence."""
    peak_memory_bytes: int = 0
    """Of the run that measured; one that only read records keeps it."""
    matrices: list[MatrixGain] = []
    notes: list[str] = []


def exact_ratio(nll: Floats, nll_reference: Floats) -> Estimate:
    """Perplexity over the reference's, from exact log-likelihoods of the same tokens."""
    difference = mean(nll.astype(np.float64) - nll_reference.astype(np.float64))
    ratio = float(np.exp(difference.value))
    return Estimate(ratio, ratio * difference.error)
