"""The file of llama-perplexity's ``--kl-divergence-base``: the reference's distributions, 16 bits each.

Layout, little-endian: ``_logits_``, then int32 n_ctx, n_vocab, n_chunk, the n_chunk * n_ctx
tokens, and for each chunk n_ctx - 1 - n_ctx/2 rows (rows.encode). Only the second half of each
chunk is scored, so that every scored token has context.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from rllm_bench.quality.rows import Codes, Ints, row_width

MAGIC = b"_logits_"
Tokens = NDArray[np.int32]


class BaseFileError(ValueError):
    """The file is not a base file, or is not the one the caller needs."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything lies in a base file."""

    num_ctx: int
    num_vocab: int
    num_chunks: int

    @property
    def first_scored(self) -> int:
        return self.num_ctx // 2

    @property
    def rows_per_chunk(self) -> int:
        return self.num_ctx - 1 - self.first_scored

    @property
    def header_bytes(self) -> int:
        return len(MAGIC) + 12 + 4 * self.num_chunks * self.num_ctx

    @property
    def chunk_bytes(self) -> int:
        return 2 * self.rows_per_chunk * row_width(self.num_vocab)

    @property
    def total_bytes(self) -> int:
        return self.header_bytes + self.num_chunks * self.chunk_bytes

    def targets(self, chunk: Tokens) -> Ints:
        """The tokens that the scored rows of ``chunk`` must predict."""
        return chunk[self.first_scored + 1 :].astype(np.int64)


class BaseReader:
    """Reads a base file chunk by chunk; never holds more than one chunk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = path.open("rb")
        try:
            self.layout, self.tokens = _read_header(self._file, path)
        except BaseException:
            self._file.close()
            raise

    @property
    def complete_chunks(self) -> int:
        size = os.fstat(self._file.fileno()).st_size - self.layout.header_bytes
        return max(0, min(self.layout.num_chunks, size // self.layout.chunk_bytes))

    def chunk(self, index: int) -> Codes:
        layout = self.layout
        if not 0 <= index < self.complete_chunks:
            raise BaseFileError(f"{self.path}: chunk {index} of {self.complete_chunks} stored")
        self._file.seek(layout.header_bytes + index * layout.chunk_bytes)
        codes = np.fromfile(self._file, np.uint16, layout.chunk_bytes // 2)
        return codes.reshape(layout.rows_per_chunk, row_width(layout.num_vocab))

    def __enter__(self) -> BaseReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class BaseWriter:
    """Appends chunks to a base file; a file left unfinished by a crash is continued.

    ``done`` says how many chunks are already there. Chunks must come in order.
    """

    def __init__(self, path: Path, layout: Layout, tokens: Tokens) -> None:
        if tokens.shape != (layout.num_chunks, layout.num_ctx):
            raise ValueError(f"tokens have shape {tokens.shape}")
        self.layout = layout
        self.done = _resumable_chunks(path, layout, tokens)
        self._file = path.open("r+b" if self.done else "w+b")
        if self.done:
            self.rewind(self.done)
        else:
            self._file.write(MAGIC)
            np.array([layout.num_ctx, layout.num_vocab, layout.num_chunks], "<i4").tofile(self._file)
            tokens.astype("<i4").tofile(self._file)

    def rewind(self, chunks: int) -> None:
        """Forget everything after the first ``chunks``."""
        self.done = min(self.done, chunks)
        self._file.truncate(self.layout.header_bytes + self.done * self.layout.chunk_bytes)
        self._file.seek(0, os.SEEK_END)

    def append(self, codes: Codes) -> None:
        if codes.nbytes != self.layout.chunk_bytes or self.done >= self.layout.num_chunks:
            raise ValueError(f"chunk {self.done} of {self.layout.num_chunks}: {codes.nbytes} bytes")
        codes.tofile(self._file)
        self._file.flush()
        self.done += 1

    def __enter__(self) -> BaseWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _read_header(file: BinaryIO, path: Path) -> tuple[Layout, Tokens]:
    if file.read(len(MAGIC)) != MAGIC:
        raise BaseFileError(f"{path} is not a --kl-divergence-base file")
    numbers = np.fromfile(file, "<i4", 3)
    if len(numbers) < 3 or (numbers <= 0).any():
        raise BaseFileError(f"{path}: damaged header")
    layout = Layout(*(int(n) for n in numbers))
    tokens = np.fromfile(file, "<i4", layout.num_chunks * layout.num_ctx)
    if len(tokens) < layout.num_chunks * layout.num_ctx:
        raise BaseFileError(f"{path}: ends inside its tokens")
    return layout, tokens.reshape(layout.num_chunks, layout.num_ctx)


def _resumable_chunks(path: Path, layout: Layout, tokens: Tokens) -> int:
    if not path.exists():
        return 0
    try:
        with BaseReader(path) as reader:
            same = reader.layout == layout and np.array_equal(reader.tokens, tokens)
            return reader.complete_chunks if same else 0
    except BaseFileError:
        return 0
