"""Importance matrices and mixed recipes: what is asked for arrives in the file, or is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from rllm.errors import HubError
from rllm.files.gguf_info import read_gguf
from rllm.modelhub import provenance
from rllm.modelhub.importance import importance_matrix, matrix_of
from rllm.modelhub.quantizing import QuantizeJob, quantize
from tests.tinymodel import write_tiny_model
from tests.unit.modelhub_files import write_gguf

TEXT = "the cat sat in the hat and the hat sat on the cat. " * 60


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.gguf")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "text.txt"


@pytest.fixture
def matrix(model: Path, text: Path, tmp_path: Path) -> Path:
    importance_matrix(model, text, tmp_path / "im.gguf", threads=1, chunks=2)
    return tmp_path / "im.gguf"


def test_every_matrix_of_the_blocks_has_its_sums(model: Path, matrix: Path) -> None:
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(matrix).tensors}
    wanted = {t.name for t in read_gguf(model).tensors if t.name.startswith("blk.") and len(t.shape) > 1}
    assert {name.removesuffix(".in_sum2") for name in tensors if name.endswith(".in_sum2")} == wanted
    assert all((data > 0).all() for name, data in tensors.items() if name.endswith(".counts"))
    assert tensors["blk.0.attn_q.weight.counts"].item() == 1024
    # the input of the first matrices is a normalised row: its mean square is 1
    mean = tensors["blk.0.attn_q.weight.in_sum2"].mean() / 1024
    assert mean == pytest.approx(1.0, rel=0.35)
    np.testing.assert_array_equal(
        tensors["blk.0.attn_q.weight.in_sum2"], tensors["blk.0.attn_k.weight.in_sum2"]
    )


def test_a_matrix_changes_the_file_and_is_written_down(model: Path, matrix: Path, tmp_path: Path) -> None:
    plain = quantize(QuantizeJob(model, tmp_path / "plain.gguf", "Q4_0", threads=1))
    weighted = quantize(QuantizeJob(model, tmp_path / "im-q4.gguf", "Q4_0", threads=1, imatrix=matrix))
    assert plain.sha256 != weighted.sha256
    assert weighted.imatrix == f"im.gguf sha256 {provenance.sha256_of(matrix)}"
    assert read_gguf(tmp_path / "im-q4.gguf").metadata["quantize.imatrix.entries_count"] == 14


def test_single_tensors_get_their_types(model: Path, tmp_path: Path) -> None:
    types = ((r"attn_v", "Q8_0"), (r"blk\.1\.ffn_down", "F16"))
    record = quantize(QuantizeJob(model, tmp_path / "mixed.gguf", "Q4_0", threads=1, tensor_types=types))
    found = {tensor.name: tensor.type for tensor in read_gguf(tmp_path / "mixed.gguf").tensors}
    assert {found["blk.0.attn_v.weight"], found["blk.1.attn_v.weight"]} == {"Q8_0"}
    assert (found["blk.1.ffn_down.weight"], found["blk.0.ffn_down.weight"]) == ("F16", "Q4_0")
    assert record.tensor_types == ("attn_v=Q8_0", r"blk\.1\.ffn_down=F16")


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ((("attn_x", "Q8_0"),), "no tensor of tiny.gguf"),
        ((("attn_v", "Q9"),), "known are F32"),
        ((("attn_(", "Q8_0"),), "not a regular expression"),
    ],
)
def test_a_recipe_that_would_be_ignored_is_refused(
    model: Path, tmp_path: Path, types: tuple[tuple[str, str], ...], message: str
) -> None:
    with pytest.raises(HubError, match=message):
        quantize(QuantizeJob(model, tmp_path / "x.gguf", "Q4_0", tensor_types=types))
    assert not (tmp_path / "x.gguf").exists()


def test_a_matrix_of_another_model_is_refused(matrix: Path, tmp_path: Path) -> None:
    other = write_gguf(tmp_path / "other.gguf")
    with pytest.raises(HubError, match="of another model"):
        quantize(QuantizeJob(other, tmp_path / "x.gguf", "Q4_0", imatrix=matrix))


def test_a_model_is_no_matrix(model: Path, tmp_path: Path) -> None:
    with pytest.raises(HubError, match="not an importance matrix"):
        quantize(QuantizeJob(model, tmp_path / "x.gguf", "Q4_0", imatrix=model))


def test_a_text_too_short_is_named_and_leaves_nothing(model: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("too short")
    with pytest.raises(HubError, match="do not fill a window"):
        importance_matrix(model, tmp_path / "short.txt", tmp_path / "im.gguf", threads=1, chunks=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["short.txt", "tiny.gguf"]


def test_a_text_becomes_a_matrix_and_a_matrix_stays(
    model: Path, text: Path, matrix: Path, tmp_path: Path
) -> None:
    made = matrix_of(text, model, tmp_path / "t.gguf", 1, 1)
    assert made.name == "tiny.text.imatrix.gguf"
    assert matrix_of(matrix, model, tmp_path / "t.gguf", 1, 1) == matrix
