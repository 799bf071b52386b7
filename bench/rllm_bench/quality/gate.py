"""Thresholds and verdicts: may this variant be served?"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from importlib import resources
from pathlib import Path

import msgspec

from rllm_bench.quality.files import ModelFile
from rllm_bench.quality.results import VariantResult


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One class of thresholds.toml; what is None is not checked."""

    name: str
    file_types: list[str]
    max_params: int | None = None
    max_mean_kld: float | None = None
    max_p99_kld: float | None = None
    min_same_top: float | None = None
    max_ppl_ratio: float | None = None
    min_flip_p: float | None = None

    def covers(self, model: ModelFile) -> bool:
        fits = self.max_params is None or 0 < model.num_params <= self.max_params
        return fits and any(fnmatch(model.file_type, pattern) for pattern in self.file_types)


class Check(msgspec.Struct, frozen=True):
    """One limit against one figure. ``value`` is None when the figure was not measured."""

    what: str
    value: float | None
    limit: float
    passed: bool


class Verdict(msgspec.Struct, frozen=True):
    """A limit whose figure was not measured does not pass: the gate never guesses."""

    limits: str
    checks: list[Check]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    classes: list[Limits] = msgspec.field(name="class")


def load_limits(path: Path | None = None) -> list[Limits]:
    """From the user's file, or the packaged one. Raises ValueError naming what is wrong in it."""
    source = path or Path(str(resources.files(__package__) / "thresholds.toml"))
    try:
        return msgspec.convert(tomllib.loads(source.read_text(encoding="utf-8")), _File).classes
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise ValueError(f"{source}: {exc}") from exc


def judge(result: VariantResult, limits: Sequence[Limits]) -> Verdict:
    """By the first class that covers the file. Raises ValueError if none does."""
    for candidate in limits:
        if candidate.covers(result.model):
            return Verdict(candidate.name, list(_checks(result, candidate)))
    raise ValueError(f"no class of the thresholds covers {result.model.file_type} ({result.model.name})")


def _checks(result: VariantResult, limits: Limits) -> Iterator[Check]:
    found = result.divergence
    for what, limit, value in (
        ("mean KL divergence", limits.max_mean_kld, found and found.kld_mean.value),
        ("99 % KL divergence", limits.max_p99_kld, found and found.kld_p99),
        ("perplexity ratio", limits.max_ppl_ratio, result.ppl_ratio and result.ppl_ratio.value),
    ):
        if limit is not None:
            yield Check(what, value, limit, value is not None and value <= limit)
    for what, limit, value in (
        ("same top token", limits.min_same_top, result.same_top and result.same_top.value),
        ("p of the flips", limits.min_flip_p, result.pairs and result.pairs.p_value),
    ):
        if limit is not None:
            yield Check(what, value, limit, value is not None and value >= limit)
