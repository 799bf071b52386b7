"""The quantization types that can be made, and the names behind ``general.file_type``."""

from __future__ import annotations

from collections.abc import Iterable

from rllm.files.gguf_info import GgufInfo
from rllm.files.gguf_reader import Tensor

QUANT_TYPES = {
    "F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7,
    "Q6_K": 18, "Q5_K_M": 17, "Q5_K_S": 16, "Q5_1": 9, "Q5_0": 8,
    "Q4_K_M": 15, "Q4_K_S": 14, "Q4_1": 3, "Q4_0": 2, "IQ4_NL": 25, "IQ4_XS": 30,
    "Q3_K_L": 13, "Q3_K_M": 12, "Q3_K_S": 11, "IQ3_M": 27, "IQ3_S": 26, "Q2_K": 10,
}  # fmt: skip
"""Name to llama.cpp's ``llama_ftype``. The types that need an importance matrix are not offered."""

TENSOR_TYPE_NUMBERS = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11,
    "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "IQ4_NL": 20, "IQ3_S": 21, "IQ4_XS": 23, "BF16": 30,
}  # fmt: skip
"""What single tensors can be told to be: name to ``ggml_type``."""

_NOT_OFFERED = {
    "IQ2_XXS": 19, "IQ2_XS": 20, "Q2_K_S": 21, "IQ3_XS": 22, "IQ3_XXS": 23, "IQ1_S": 24, "IQ2_S": 28,
    "IQ2_M": 29, "IQ1_M": 31, "TQ1_0": 36, "TQ2_0": 37, "MXFP4_MOE": 38, "NVFP4": 39, "Q1_0": 40, "Q2_0": 41,
}  # fmt: skip
_NAMES = {number: name for name, number in (QUANT_TYPES | _NOT_OFFERED).items()}

_EXACT = frozenset({"F64", "F32", "F16", "BF16", "I8", "I16", "I32", "I64"})
_K_BLOCK = 256


def file_type_name(info: GgufInfo) -> str:
    """What the file calls itself, e.g. "Q4_K_M"; says nothing about what each tensor really is."""
    number = info.metadata.get("general.file_type")
    if isinstance(number, int):
        return _NAMES.get(number, f"file type {number}")
    return "unknown"


def quantized_types(info: GgufInfo) -> list[str]:
    """The lossy tensor types in a file, largest share of the parameters first; empty for F16 and the like."""
    return [share.type for share in info.type_shares() if share.type not in _EXACT]


def needs_k_blocks(type_name: str) -> bool:
    """Whether rows must divide by 256; where they do not, llama.cpp falls back to another type in silence."""
    return "_K" in type_name or (type_name.startswith(("IQ", "TQ")) and type_name != "IQ4_NL")


def fallen_back(type_name: str, tensors: Iterable[Tensor]) -> list[Tensor]:
    """Matrices of a K-quant that could not have the type they were meant to have."""
    if not needs_k_blocks(type_name):
        return []
    return [t for t in tensors if len(t.shape) > 1 and t.type != "F32" and t.shape[0] % _K_BLOCK != 0]
