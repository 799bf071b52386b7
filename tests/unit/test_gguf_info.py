"""The header reader against files that the gguf package writes."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES

from rllm.errors import StartError
from rllm.files.gguf_info import CACHE_TYPES, TypeShare, kv_bytes_per_token, read_gguf, shard_paths
from rllm.files.gguf_reader import TENSOR_TYPES, LongArray


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
    assert {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()} == TENSOR_TYPES
    assert {name.upper() for name in CACHE_TYPES} <= {name for name, _, _ in TENSOR_TYPES.values()}


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


def _text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _value(key: bytes, kind: int, data: bytes) -> bytes:
    return _text(key) + struct.pack("<I", kind) + data


def _header(*values: bytes, num_tensors: int = 0, num_values: int | None = None, rest: bytes = b"") -> bytes:
    count = len(values) if num_values is None else num_values
    return b"GGUF" + struct.pack("<IQQ", 3, num_tensors, count) + b"".join(values) + rest


_LLAMA = _value(b"general.architecture", 8, _text(b"llama"))


def _of_llama(name: bytes, kind: int, data: bytes) -> bytes:
    return _header(_LLAMA, _value(b"llama." + name, kind, data))


HOSTILE: dict[str, Callable[[], bytes]] = {
    "2^63 layers": lambda: _of_llama(b"block_count", 10, struct.pack("<Q", 2**63)),
    "2*10^9 layers": lambda: _of_llama(b"block_count", 4, struct.pack("<I", 2 * 10**9)),
    "layers that are a text": lambda: _of_llama(b"block_count", 8, _text(b"x")),
    "layers that are true": lambda: _of_llama(b"block_count", 7, b"\1"),
    "a width below zero": lambda: _of_llama(b"embedding_length", 5, struct.pack("<i", -5)),
    "heads that are texts": lambda: _of_llama(
        b"attention.head_count", 9, struct.pack("<IQ", 8, 1) + _text(b"4")
    ),
    "heads that are fractions": lambda: _of_llama(b"attention.head_count", 9, struct.pack("<IQf", 6, 1, 4.0)),
    "arrays 5,000 deep": lambda: _header(_value(b"a", 9, struct.pack("<IQ", 9, 1) * 5000)),
    "an array of unknown things": lambda: _header(_value(b"a", 9, struct.pack("<IQ", 77, 5000))),
    "an architecture that is a number": lambda: _header(_value(b"general.architecture", 4, b"\1\0\0\0")),
    "2M zero-filled values": lambda: _header(num_values=2**21, rest=bytes(60 * 2**20)),
    "2M zero-filled tensors": lambda: _header(num_tensors=2**21, rest=bytes(60 * 2**20)),
    "60,000 zero-filled values": lambda: _header(num_values=60_000, rest=bytes(2**21)),
    "60,000 zero-filled tensors": lambda: _header(num_tensors=60_000, rest=bytes(2**22)),
    "an array of 2^60 texts": lambda: _header(
        _value(b"a", 9, struct.pack("<IQ", 8, 2**60)), rest=bytes(2**20)
    ),
    "many arrays of texts": lambda: _header(
        *(_value(b"%d" % i, 9, struct.pack("<IQ", 8, 2**20) + bytes(2**23)) for i in range(4))
    ),
    "60,000 arrays": lambda: _header(
        *(_value(b"%d" % i, 9, struct.pack("<IQ", 0, 1024) + bytes(1024)) for i in range(60_000))
    ),
    "a text of 2^63 bytes": lambda: _header(_value(b"a", 8, struct.pack("<Q", 2**63))),
    "a text of 100 MB": lambda: _header(_value(b"a", 8, _text(bytes(100 * 2**20)))),
    "a name of 1 MB": lambda: _header(_value(bytes(2**20), 0, b"\0")),
    "a tensor of 2^256 weights": lambda: _header(
        num_tensors=1, rest=_text(b"t") + struct.pack("<IQQQQIQ", 4, *[2**64 - 1] * 4, 0, 2**64 - 1)
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_refused_in_one_line_and_soon(tmp_path: Path, name: str) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(HOSTILE[name]())
    began = time.process_time()
    with pytest.raises(StartError, match=r"hostile\.gguf: (damaged|truncated)") as refused:
        read_gguf(path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500
    assert time.process_time() - began < 2


def test_the_largest_header_that_is_read_takes_seconds_not_minutes(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    values = [_value(b"%d" % i, 0, b"\0") for i in range(65_000)]
    texts = _value(b"tokens", 9, struct.pack("<IQ", 8, 3 * 2**20) + bytes(8 * 3 * 2**20))
    path.write_bytes(_header(*values, texts))
    began = time.process_time()
    assert len(read_gguf(path).metadata) == 65_001
    assert time.process_time() - began < 5


def test_a_fifo_or_a_device_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    for path in (tmp_path / "pipe.gguf", Path("/dev/zero")):
        with pytest.raises(StartError, match="not a regular file"):
            read_gguf(path)
