"""One pass over the header of a GGUF file, which may be anything.

What is read is bounded in time and memory, and numbers to compute with are within what a model can have.
"""

from __future__ import annotations

import mmap
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

_MOST_ENTRIES = 2**16
"""Metadata values, or tensors; the largest models have some thousand tensors."""
_MOST_TEXTS = 3 * 2**20
"""Texts in arrays; a vocabulary of 262,144 tokens has 580,604 merges. A second to step over."""
_MOST_KEPT_BYTES = 64 * 2**20
"""Of texts and short arrays; some files hold a whole tokenizer.json as one value."""
_ITEM_BYTES = 64
"""Of an item of an array that is kept."""
_MOST_NAME_BYTES = 2**16 - 1

# Under the architecture's prefix: what is computed with here. Products of them stay below 2^63.
_MOST_OF = {
    "block_count": 2**16,
    "context_length": 2**31 - 1,
    "embedding_length": 2**24,
    "feed_forward_length": 2**28,
    "vocab_size": 2**28,
    "attention.head_count": 2**16,
    "attention.head_count_kv": 2**16,
    "attention.key_length": 2**16,
    "attention.value_length": 2**16,
}

# id: (name, elements of a block, bytes of a block), as in ggml.c
TENSOR_TYPES = {
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


class Reader:
    """One pass over the header. Every read is checked against the end of the file."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path = path
        self._data = data
        self._at = 4
        self._num_texts = 0
        self._num_kept = 0

    def read(self) -> tuple[dict[str, Value], tuple[Tensor, ...]]:
        """Metadata and tensors.

        Raises:
            StartError: truncated, damaged, or beyond what is read.
        """
        try:
            version = self._scalar("I")
            if not 2 <= version <= 3:
                raise self._error(f"GGUF version {version} is not supported (2 and 3 are)")
            num_tensors, num_values = self._scalar("Q"), self._scalar("Q")
            if max(num_tensors, num_values) > _MOST_ENTRIES:
                what = f"{num_tensors:,} tensors and {num_values:,} values"
                raise self._error(f"damaged: a header of {what}; at most {_MOST_ENTRIES:,} are read")
            metadata = self._metadata(num_values)
            located = self._tensors(num_tensors)
        except (struct.error, IndexError, OverflowError):
            raise self._error("truncated: the file ends within its header") from None
        except UnicodeDecodeError:
            raise self._error("damaged: a key or a name is not text") from None
        self._check_numbers(metadata)
        self._check_length(metadata, located)
        return metadata, tuple(tensor for tensor, _ in located)

    def _metadata(self, count: int) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for _ in range(count):
            key = self._name()
            if key in found:
                raise self._error(f"damaged: {key!r} is there twice")
            found[key] = self._value(self._scalar("I"))
        return found

    def _tensors(self, count: int) -> list[tuple[Tensor, int]]:
        found: dict[str, tuple[Tensor, int]] = {}
        for _ in range(count):
            tensor, offset = self._tensor()
            if tensor.name in found:
                raise self._error(f"damaged: tensor {tensor.name!r} is there twice")
            found[tensor.name] = tensor, offset
        return list(found.values())

    def _check_numbers(self, metadata: Mapping[str, Value]) -> None:
        architecture = metadata.get("general.architecture", "")
        if not isinstance(architecture, str):
            raise self._error("damaged: general.architecture is not text")
        for name, most in _MOST_OF.items():
            value = metadata.get(key := f"{architecture}.{name}", 0)
            for number in value if isinstance(value, list) else [value]:
                if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= most:
                    shown = number if isinstance(number, int | float) else "no number"
                    raise self._error(f"damaged: {key} is {shown}; 0 to {most:,} is possible")

    def _check_length(self, metadata: Mapping[str, Value], located: list[tuple[Tensor, int]]) -> None:
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0:
            raise self._error(f"damaged: general.alignment is {alignment!r}")
        start = -(-self._at // alignment) * alignment
        end = start + max((offset + tensor.num_bytes for tensor, offset in located), default=0)
        if located and end > len(self._data):
            raise self._error(f"truncated: {len(self._data):,} of {end:,} bytes are there")

    def _tensor(self) -> tuple[Tensor, int]:
        name = self._name()
        num_dims = self._scalar("I")
        if num_dims > 4:
            raise self._error(f"damaged: tensor {name!r} has {num_dims} dimensions")
        shape = tuple(self._scalar("Q") for _ in range(num_dims))
        type_id, offset = self._scalar("I"), self._scalar("Q")
        if type_id not in TENSOR_TYPES:
            raise self._error(f"tensor {name!r} has the unknown type {type_id}")
        type_name, block, size = TENSOR_TYPES[type_id]
        return Tensor(name, type_name, shape, prod(shape) // block * size), offset

    def _value(self, kind: int) -> Value:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise self._error(f"damaged: unknown metadata type {kind}")
        return self._scalars(_SCALARS[kind])[0]

    def _array(self) -> Value:
        kind, length = self._scalar("I"), self._scalar("Q")
        if kind == _ARRAY:
            raise self._error("damaged: an array of arrays")  # llama.cpp reads none either
        if length <= _KEPT_ARRAY_LENGTH:
            self._keep(length * _ITEM_BYTES)
            if kind in _SCALARS:
                return self._scalars(f"{length}{_SCALARS[kind]}")
            return [self._value(kind) for _ in range(length)]
        if kind in _SCALARS:
            self._skip(length * struct.calcsize("<" + _SCALARS[kind]))
        elif kind == _STRING:
            self._skip_texts(length)
        else:
            raise self._error(f"damaged: an array of unknown type {kind}")
        return LongArray(length)

    def _skip_texts(self, count: int) -> None:
        self._num_texts += count
        if self._num_texts > _MOST_TEXTS:
            raise self._error(f"damaged: more than {_MOST_TEXTS:,} texts in arrays")
        at, data, length_at = self._at, self._data, struct.Struct("<Q").unpack_from
        for _ in range(count):
            at += 8 + length_at(data, at)[0]  # beyond the end it is an error
        self._at = at
        self._skip(0)

    def _name(self) -> str:
        if (length := self._scalar("Q")) > _MOST_NAME_BYTES:
            raise self._error(f"damaged: a name of {length:,} bytes")
        return self._bytes(length).decode()

    def _text(self) -> str:
        return self._bytes(self._scalar("Q")).decode("utf-8", "replace")

    def _bytes(self, length: int) -> bytes:
        start = self._at
        self._skip(length)
        self._keep(length)
        return self._data[start : self._at]

    def _keep(self, num_bytes: int) -> None:
        self._num_kept += num_bytes
        if self._num_kept > _MOST_KEPT_BYTES:
            raise self._error(f"damaged: more than {_MOST_KEPT_BYTES:,} bytes of texts and short arrays")

    def _scalar(self, code: str) -> int:
        value: int = struct.unpack_from("<" + code, self._data, self._at)[0]
        self._at += struct.calcsize("<" + code)
        return value

    def _scalars(self, codes: str) -> list[Value]:
        values = list(struct.unpack_from("<" + codes, self._data, self._at))
        self._at += struct.calcsize("<" + codes)
        return values

    def _skip(self, num_bytes: int) -> None:
        self._at += num_bytes
        if self._at > len(self._data):
            raise IndexError(self._at)

    def _error(self, reason: str) -> StartError:
        return StartError(f"{self._path}: {reason}")
