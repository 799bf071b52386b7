"""A model in several files is one model: inspected, quantized and served whole, whichever part is named."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from click.testing import CliRunner

from rllm.errors import StartError
from rllm.files.gguf_info import model_name, read_gguf, read_model, shard_paths
from rllm.modelhub import provenance
from rllm.modelhub.cli import cli
from rllm.modelhub.inspecting import as_text, inspect
from rllm.settings.load import load
from tests.tinymodel import write_tiny_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("whole") / "tiny.gguf")


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "tiny.gguf", tensors_per_part=8)


def test_all_parts_are_read_as_one(first: Path, whole: Path) -> None:
    parts = shard_paths(first)
    assert len(parts) == 3
    info, one = read_model(parts[1]), read_gguf(whole)
    assert {tensor.name for tensor in info.tensors} == {tensor.name for tensor in one.tensors}
    assert info.num_params == one.num_params
    assert info.file_bytes == sum(part.stat().st_size for part in parts)
    assert info.metadata["llama.block_count"] == one.metadata["llama.block_count"]
    parts[2].unlink()
    with pytest.raises(StartError, match=r"00003-of-00003\.gguf: No such file"):
        read_model(first)


def test_inspecting_any_part_shows_the_whole_model(first: Path, whole: Path) -> None:
    found, one = inspect(shard_paths(first)[2]), inspect(whole)
    assert (found.num_params, found.num_layers, found.num_shards) == (one.num_params, one.num_layers, 3)
    everything = b"".join(part.read_bytes() for part in shard_paths(first))
    assert found.sha256 == hashlib.sha256(everything).hexdigest()
    assert "tiny-00001-of-00003.gguf and 2 more" in as_text(found)
    assert not any("shard" in warning or "part" in warning for warning in found.warnings)


def test_quantizing_any_part_makes_one_file_of_all(first: Path, whole: Path) -> None:
    result = CliRunner().invoke(cli, ["quantize", str(shard_paths(first)[1]), "q8_0", "--threads", "1"])
    assert result.exit_code == 0, result.output
    target = first.with_name("tiny.Q8_0.gguf")
    assert read_gguf(target).num_params == read_gguf(whole).num_params
    record = provenance.load(target)
    assert record is not None
    assert (record.sources[0].file, record.sources[0].sha256) == (first.name, inspect(first).sha256)


def test_the_name_of_a_split_model_has_no_number_in_it() -> None:
    assert model_name(Path("m-00001-of-00003.gguf")) == "m"
    assert model_name(Path("m-1-of-3.gguf")) == "m-1-of-3"
    assert load({"gguf": (Path("x/m-00001-of-00003.gguf"),)}).served()[0].id == "m"
