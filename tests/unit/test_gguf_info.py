"""The header reader against files that the gguf package writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES

from rllm.errors import StartError
from rllm.gguf_info import (
    _TENSOR_TYPES,
    CACHE_TYPES,
    LongArray,
    TypeShare,
    kv_bytes_per_token,
    read_gguf,
    shard_paths,
)


@pytest.fixture
def gguf_path(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(3)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_chat_template("{{ messages }}")
    writer.add_token_list([f"token {i}" for i in range(2000)])
    writer.add_token_merges(["a b"])
    writer.add_tensor("first", np.zeros((4, 8), dtype=np.float32))
    writer.add_tensor("second", np.zeros((64, 64), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_header_is_read(gguf_path: Path) -> None:
    info = read_gguf(gguf_path)
    assert info.architecture == "llama"
    assert info.num_params == 4 * 8 + 64 * 64
    assert info.num_ctx_train == 128
    assert info.vocab_size == 2000
    assert info.metadata["tokenizer.ggml.tokens"] == LongArray(2000)
    assert info.metadata["tokenizer.ggml.merges"] == ["a b"]
    assert info.chat_template == "{{ messages }}"
    assert info.type_shares() == [TypeShare("F16", 1, 4096, 8192), TypeShare("F32", 1, 32, 128)]


def test_kv_bytes_count_both_caches_of_every_layer(gguf_path: Path) -> None:
    metadata = read_gguf(gguf_path).metadata
    assert kv_bytes_per_token(metadata) == 3 * 2 * (2 * 16) * 2
    assert kv_bytes_per_token(metadata, "q8_0", "f16") == 3 * (34 + 64)


def test_layers_may_have_different_numbers_of_heads() -> None:
    metadata = {
        "general.architecture": "x",
        "x.block_count": 2,
        "x.attention.head_count": [4, 4],
        "x.attention.head_count_kv": [0, 2],
        "x.attention.key_length": 32,
        "x.attention.value_length": 16,
    }
    assert kv_bytes_per_token(metadata) == 2 * (32 + 16) * 2


def test_type_table_agrees_with_the_gguf_package() -> None:
    assert {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()} == _TENSOR_TYPES
    assert {name.upper() for name in CACHE_TYPES} <= {name for name, _, _ in _TENSOR_TYPES.values()}


@pytest.mark.parametrize("kept", [1, 20, 200, 5000, 20000])
def test_a_truncated_file_is_refused_in_one_line(gguf_path: Path, kept: int) -> None:
    gguf_path.write_bytes(gguf_path.read_bytes()[:kept])
    with pytest.raises(StartError, match=r"small\.gguf: (truncated|not a GGUF)") as refused:
        read_gguf(gguf_path)
    assert "\n" not in str(refused.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file"):
        read_gguf(tmp_path / "missing.gguf")
    with pytest.raises(StartError, match="directory"):
        read_gguf(tmp_path)
    for content in (b"", b"PK\x03\x04 zip", b"GGUF" + b"\xff" * 60):
        (tmp_path / "other").write_bytes(content)
        with pytest.raises(StartError, match="other: "):
            read_gguf(tmp_path / "other")


def test_shards_are_named_from_any_one_of_them() -> None:
    assert [p.name for p in shard_paths(Path("m-00002-of-00002.gguf"))] == [
        "m-00001-of-00002.gguf",
        "m-00002-of-00002.gguf",
    ]
    assert shard_paths(Path("m.gguf")) == [Path("m.gguf")]
