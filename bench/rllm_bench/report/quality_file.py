"""As much of `rllm-bench quality`'s results as a speed report shows beside its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from rllm_bench.records import archive


class _Model(msgspec.Struct, frozen=True):
    sha256: str
    file_type: str
    type_shares: dict[str, float] = {}


class _Value(msgspec.Struct, frozen=True):
    value: float


class _Divergence(msgspec.Struct, frozen=True):
    kld_mean: _Value


class _Result(msgspec.Struct, frozen=True):
    model: _Model
    divergence: _Divergence | None = None


class _File(msgspec.Struct, frozen=True):
    """Other fields of the file are left alone."""

    reference: _Result | None = None
    variants: list[_Result] = []


@dataclass(frozen=True, slots=True)
class Judged:
    """One model file."""

    kld: float
    """Mean KL divergence from its reference; that of a reference is 0."""
    file_type: str
    type_shares: dict[str, float]


def judged(places: Sequence[Path]) -> dict[str, Judged]:
    """By the model file's sha256, from quality.json in folders or files of that name."""
    found: dict[str, Judged] = {}
    for file in archive.named("quality.json", places):
        run = msgspec.json.decode(archive.read_bytes(file), type=_File)
        if run.reference is not None:
            model = run.reference.model
            found.setdefault(model.sha256, Judged(0.0, model.file_type, model.type_shares))
        for one in run.variants:
            if one.divergence is not None:
                found[one.model.sha256] = Judged(
                    one.divergence.kld_mean.value, one.model.file_type, one.model.type_shares
                )
    return found
