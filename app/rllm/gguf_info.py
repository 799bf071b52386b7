"""What a GGUF file says about itself, read from its header without loading it.

Needs neither llama.cpp nor numpy: the API process may use it before any of the two is imported, and
it reads a 128k-token vocabulary in a fraction of a second because it steps over long arrays.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeAlias

from rllm.errors import StartError

# https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_KEPT_ARRAY_LENGTH = 1024

# id: (name, elements of a block, bytes of a block), as in ggml.c
_TENSOR_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40), 10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18),
}  # fmt: skip

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""What a KV cache may be stored as."""


@dataclass(frozen=True, slots=True)
class LongArray:
    """Stands for a metadata array that was stepped over."""

    length: int


Value: TypeAlias = "int | float | bool | str | list[Value] | LongArray"


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    type: str
    shape: tuple[int, ...]
    num_bytes: int

    @property
    def num_params(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class TypeShare:
    """All tensors of one type together."""

    type: str
    num_tensors: int
    num_params: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class GgufInfo:
    path: Path
    file_bytes: int
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", "unknown"))

    @property
    def name(self) -> str:
        return str(self.metadata.get("general.name", self.path.stem))

    @property
    def num_params(self) -> int:
        return sum(tensor.num_params for tensor in self.tensors)

    @property
    def num_layers(self) -> int:
        return self.number("block_count")

    @property
    def num_ctx_train(self) -> int:
        return self.number("context_length")

    @property
    def embedding_length(self) -> int:
        return self.number("embedding_length")

    @property
    def vocab_size(self) -> int:
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, LongArray):
            return tokens.length
        return len(tokens) if isinstance(tokens, list) else self.number("vocab_size")

    @property
    def chat_template(self) -> str | None:
        template = self.metadata.get("tokenizer.chat_template")
        return template if isinstance(template, str) else None

    @property
    def num_shards(self) -> int:
        """Above 1 the model goes on in sibling files, which are not counted here."""
        count = self.metadata.get("split.count", 1)
        return count if isinstance(count, int) else 1

    def number(self, key: str) -> int:
        """An integer under the architecture's own prefix; 0 where it is absent."""
        value = self.metadata.get(f"{self.architecture}.{key}", 0)
        return value if isinstance(value, int) else 0

    def type_shares(self) -> list[TypeShare]:
        """Largest share of the parameters first."""
        groups: dict[str, list[Tensor]] = {}
        for tensor in self.tensors:
            groups.setdefault(tensor.type, []).append(tensor)
        shares = [
            TypeShare(name, len(group), sum(t.num_params for t in group), sum(t.num_bytes for t in group))
            for name, group in groups.items()
        ]
        return sorted(shares, key=lambda share: -share.num_params)


def read_gguf(path: Path | str) -> GgufInfo:
    """Read and check the header.

    Raises:
        StartError: missing, not a GGUF, truncated or damaged; one line that names the file and says why.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            if magic != b"GGUF":
                raise StartError(f"{path}: not a GGUF file (it begins with {magic!r})")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data).read()
    except OSError as error:
        raise StartError(f"{path}: {error.strerror or error}") from None


def kv_bytes_per_token(metadata: Mapping[str, Value], type_k: str = "f16", type_v: str = "f16") -> int:
    """Bytes that one token of context takes in the KV cache, all layers together."""
    prefix = metadata.get("general.architecture", "")

    def number(key: str, default: int = 0) -> int:
        value = metadata.get(f"{prefix}.{key}", default)
        return value if isinstance(value, int) else default

    heads_of_layer = metadata.get(f"{prefix}.attention.head_count", 0)
    heads = max(heads_of_layer, default=0) if isinstance(heads_of_layer, list) else heads_of_layer  # type: ignore[type-var]
    if not isinstance(heads, int) or heads <= 0:
        return 0
    head_dim = number("embedding_length") // heads
    kv_heads = metadata.get(f"{prefix}.attention.head_count_kv", heads)
    per_layer = kv_heads if isinstance(kv_heads, list) else [kv_heads] * number("block_count")
    total = 0
    for num in per_layer:
        if isinstance(num, int):
            total += _row_bytes(type_k, num * number("attention.key_length", head_dim))
            total += _row_bytes(type_v, num * number("attention.value_length", head_dim))
    return total


_BLOCKS = {name.lower(): (elements, size) for name, elements, size in _TENSOR_TYPES.values()}


def _row_bytes(type_name: str, elements: int) -> int:
    block, size = _BLOCKS[type_name.lower()]
    return -(-elements // block) * size


class _Reader:
    """One pass over the header. Every read is checked against the end of the file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._at = 4

    def read(self) -> GgufInfo:
        try:
            version = self._scalar("I")
            if not 2 <= version <= 3:
                raise self._error(f"GGUF version {version} is not supported (2 and 3 are)")
            num_tensors, num_values = self._scalar("Q"), self._scalar("Q")
            metadata = {self._string(): self._value(self._scalar("I")) for _ in range(num_values)}
            located = [self._tensor() for _ in range(num_tensors)]
        except (struct.error, IndexError):
            raise self._error("truncated: the file ends within its header") from None
        except UnicodeDecodeError:
            raise self._error("damaged: a key or a name is not text") from None
        self._check_length(metadata, located)
        return GgufInfo(self._path, len(self._data), metadata, tuple(tensor for tensor, _ in located))

    def _check_length(self, metadata: Mapping[str, Value], located: list[tuple[Tensor, int]]) -> None:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0:
            raise self._error(f"damaged: general.alignment is {alignment!r}")
        start = -(-self._at // alignment) * alignment
        end = start + max((offset + tensor.num_bytes for tensor, offset in located), default=0)
        if located and end > len(self._data):
            raise self._error(f"truncated: {len(self._data):,} of {end:,} bytes are there")

    def _tensor(self) -> tuple[Tensor, int]:
        name = self._string()
        num_dims = self._scalar("I")
        if num_dims > 4:
            raise self._error(f"damaged: tensor {name!r} has {num_dims} dimensions")
        shape = tuple(self._scalar("Q") for _ in range(num_dims))
        type_id, offset = self._scalar("I"), self._scalar("Q")
        if type_id not in _TENSOR_TYPES:
            raise self._error(f"tensor {name!r} has the unknown type {type_id}")
        type_name, block, size = _TENSOR_TYPES[type_id]
        return Tensor(name, type_name, shape, prod(shape) // block * size), offset

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._string(errors="replace")
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise self._error(f"damaged: unknown metadata type {kind}")
        value: int | float | bool = struct.unpack_from("<" + _SCALARS[kind], self._data, self._at)[0]
        self._at += struct.calcsize("<" + _SCALARS[kind])
        return value

    def _array(self) -> Value:
        kind, length = self._scalar("I"), self._scalar("Q")
        if length <= _KEPT_ARRAY_LENGTH:
            return [self._value(kind) for _ in range(length)]
        if kind in _SCALARS:
            self._skip(length * struct.calcsize("<" + _SCALARS[kind]))
        elif kind == _STRING:
            for _ in range(length):
                self._skip(self._scalar("Q"))
        else:
            raise self._error(f"damaged: an array of {length} arrays")
        return LongArray(length)

    def _string(self, errors: str = "strict") -> str:
        start = self._at + 8
        self._skip(self._scalar("Q"))
        return self._data[start : self._at].decode("utf-8", errors)

    def _scalar(self, code: str) -> int:
        value: int = struct.unpack_from("<" + code, self._data, self._at)[0]
        self._at += struct.calcsize("<" + code)
        return value

    def _skip(self, num_bytes: int) -> None:
        self._at += num_bytes
        if self._at > len(self._data):
            raise IndexError(self._at)

    def _error(self, reason: str) -> StartError:
        return StartError(f"{self._path}: {reason}")


def shard_paths(path: Path) -> list[Path]:
    """The files of a model that was split as "name-00001-of-00003.gguf"; the file itself otherwise."""
    match = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})\.gguf", path.name)
    if match is None:
        return [path]
    count = int(match[2])
    return [path.with_name(f"{match[1]}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1)]
