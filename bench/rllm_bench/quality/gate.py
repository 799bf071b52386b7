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
    yield from _at_most("mean KL divergence", found.kld_mean.value if found else None, limits.max_mean_kld)
    yield from _at_most("99 % KL divergence", found.kld_p99 if found else None, limits.max_p99_kld)
    ratio = result.ppl_ratio.value if result.ppl_ratio else None
    yield from _at_most("perplexity ratio", ratio, limits.max_ppl_ratio)
    same = result.same_top.value if result.same_top else None
    yield from _at_least("same top token", same, limits.min_same_top)
    flips = result.pairs.p_value if result.pairs else None
    yield from _at_least("p of the flips", flips, limits.min_flip_p)


def _at_most(what: str, value: float | None, limit: float | None) -> Iterator[Check]:
    if limit is not None:
        yield Check(what, value, limit, value is not None and value <= limit)


def _at_least(what: str, value: float | None, limit: float | None) -> Iterator[Check]:
    if limit is not None:
        yield Check(what, value, limit, value is not None and value >= limit)
