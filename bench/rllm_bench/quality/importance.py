"""Does an importance matrix help? Files of one type with and without, compared token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np

from rllm_bench.quality.files import ModelFile
from rllm_bench.quality.metrics import Estimate, mean
from rllm_bench.quality.rows import Scores


class MatrixGain(msgspec.Struct, frozen=True, kw_only=True):
    """What a file made with an importance matrix has over one of the same type made without."""

    without: str
    matrix: str
    """The name of the file made with it."""
    kld: Estimate
    """Mean KLD without, minus with: above 0 the matrix helps. Token by token, so far more certain than
    the two means."""
    same_top: Estimate
    """Share of equal top tokens with, minus without."""

    @property
    def verdict(self) -> str:
        if abs(self.kld.value) <= 2 * self.kld.error:
            return "no difference"
        return "better" if self.kld.value > 0 else "**worse**"


def matrix_pairs(files: Sequence[ModelFile]) -> Iterator[tuple[int, int]]:
    """Places of files of one type: made without, and with a matrix."""
    plain: dict[str, int] = {}
    for place, file in enumerate(files):
        if file.imatrix is None:
            plain.setdefault(file.file_type, place)
    for place, file in enumerate(files):
        if file.imatrix is not None and file.file_type in plain:
            yield plain[file.file_type], place


def gains(files: Sequence[ModelFile], scores: Callable[[int], Scores]) -> list[MatrixGain]:
    """``scores``: of the file at that place, all over the same tokens."""
    return [
        _gain(files[plain], files[made], scores(plain), scores(made)) for plain, made in matrix_pairs(files)
    ]


def _gain(without: ModelFile, matrix: ModelFile, plain: Scores, made: Scores) -> MatrixGain:
    def difference(figure: str) -> Estimate:
        return mean(plain[figure].astype(np.float64) - made[figure].astype(np.float64))

    top = difference("same_top")
    return MatrixGain(
        without=without.name,
        matrix=matrix.name,
        kld=difference("kld"),
        same_top=Estimate(-top.value, top.error),
    )
