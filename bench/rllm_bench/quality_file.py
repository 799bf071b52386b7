"""As much of `rllm-bench quality`'s results as a speed report shows beside its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec


class _Model(msgspec.Struct, frozen=True):
    sha256: str


class _Value(msgspec.Struct, frozen=True):
    value: float


class _Divergence(msgspec.Struct, frozen=True):
    kld_mean: _Value


class Quality(msgspec.Struct, frozen=True):
    """One variant against its reference. Other fields of the file are left alone."""

    model: _Model
    divergence: _Divergence | None = None


class _File(msgspec.Struct, frozen=True):
    reference: Quality | None = None
    variants: list[Quality] = []


def kld_by_model(places: Sequence[Path]) -> dict[str, float]:
    """Mean KL divergence by the model file's sha256, from quality.json in folders or files of that name.

    That of a reference is 0.
    """
    files = [place / "quality.json" if place.is_dir() else place for place in places]
    found: dict[str, float] = {}
    for file in files:
        if file.name != "quality.json" or not file.exists():
            continue
        run = msgspec.json.decode(file.read_bytes(), type=_File)
        if run.reference is not None:
            found.setdefault(run.reference.model.sha256, 0.0)
        found |= {v.model.sha256: v.divergence.kld_mean.value for v in run.variants if v.divergence}
    return found
