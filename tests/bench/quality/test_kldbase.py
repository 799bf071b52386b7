"""The base file: what is written is read back, and an unfinished file is continued."""

from pathlib import Path

import numpy as np
import pytest

from rllm_bench.quality.kldbase import BaseFileError, BaseReader, BaseWriter, Layout
from rllm_bench.quality.rows import row_width

LAYOUT = Layout(num_ctx=8, num_vocab=5, num_chunks=3)
TOKENS = np.arange(24, dtype=np.int32).reshape(3, 8) % 5


def codes(seed: int) -> np.ndarray:
    shape = (LAYOUT.rows_per_chunk, row_width(LAYOUT.num_vocab))
    return np.random.default_rng(seed).integers(0, 65536, shape).astype(np.uint16)


def write(path: Path, chunks: int) -> None:
    with BaseWriter(path, LAYOUT, TOKENS) as writer:
        for i in range(writer.done, chunks):
            writer.append(codes(i))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write(tmp_path / "b.kld", 3)
    assert (tmp_path / "b.kld").stat().st_size == LAYOUT.total_bytes
    with BaseReader(tmp_path / "b.kld") as reader:
        assert reader.layout == LAYOUT
        assert (reader.tokens == TOKENS).all()
        assert (reader.chunk(2) == codes(2)).all()


def test_targets_are_the_tokens_after_the_scored_rows() -> None:
    assert LAYOUT.targets(np.arange(8, dtype=np.int32)).tolist() == [5, 6, 7]


def test_an_unfinished_file_is_continued_after_its_last_whole_chunk(tmp_path: Path) -> None:
    path = tmp_path / "b.kld"
    write(path, 2)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 3)
    with BaseWriter(path, LAYOUT, TOKENS) as writer:
        assert writer.done == 1
    write(path, 3)
    with BaseReader(path) as reader:
        assert [bool((reader.chunk(i) == codes(i)).all()) for i in range(3)] == [True] * 3


def test_a_file_of_other_tokens_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "b.kld"
    write(path, 3)
    with BaseWriter(path, LAYOUT, TOKENS[::-1].copy()) as writer:
        assert writer.done == 0


@pytest.mark.parametrize(
    "content", [b"", b"GGUF....", b"_logits_\x01", b"_logits_" + b"\x08\0\0\0" * 3 + b"x"]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(BaseFileError):
        BaseReader(tmp_path / "x")


def test_a_chunk_that_is_not_there_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "b.kld", 1)
    with BaseReader(tmp_path / "b.kld") as reader, pytest.raises(BaseFileError, match="chunk 1 of 1"):
        reader.chunk(1)
