"""As much of `rllm-bench quality`'s results as a speed report shows beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec


class Quality(msgspec.Struct, frozen=True):
    """One variant against its reference. Other fields of the file are left alone."""

    model_sha256: str
    mean_kld: float


class _File(msgspec.Struct, frozen=True):
    variants: list[Quality] = []


def qualities(places: Sequence[Path]) -> list[Quality]:
    """From quality.json in run folders, or files of that name."""
    files = [place / "quality.json" if place.is_dir() else place for place in places]
    return [
        one
        for file in files
        if file.name == "quality.json" and file.exists()
        for one in msgspec.json.decode(file.read_bytes(), type=_File).variants
    ]
