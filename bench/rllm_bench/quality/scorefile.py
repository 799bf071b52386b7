"""Per-token scores on disk, appended chunk by chunk, so that a run goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rllm_bench.quality.rows import SCORE, Scores


class ScoreFile:
    """Whole chunks only: what a crash left of a chunk is cut off on opening."""

    def __init__(self, path: Path, rows_per_chunk: int) -> None:
        self._path = path
        self._rows = rows_per_chunk

    @property
    def done(self) -> int:
        size = self._path.stat().st_size if self._path.exists() else 0
        return size // (self._rows * SCORE.itemsize)

    def keep(self, chunks: int) -> None:
        """Forget everything after the first ``chunks``."""
        self._path.touch()
        with self._path.open("r+b") as file:
            file.truncate(min(chunks, self.done) * self._rows * SCORE.itemsize)

    def append(self, scores: Scores) -> None:
        if scores.dtype != SCORE or len(scores) != self._rows:
            raise ValueError(f"{len(scores)} scores of {scores.dtype}, expected {self._rows}")
        with self._path.open("ab") as file:
            scores.tofile(file)

    def read(self, chunks: int | None = None) -> Scores:
        count = self.done if chunks is None else chunks
        return np.fromfile(self._path, SCORE, count * self._rows)
