"""What a report says of a model file: its identity, size, and which tensor types it really holds."""

from __future__ import annotations

from pathlib import Path

import msgspec

from rllm.files.gguf_info import GgufInfo, read_gguf
from rllm_bench.quality.cache import file_sha256

# llama_ftype in llama.h
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL",
    26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
    36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
}  # fmt: skip


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    path: str
    sha256: str
    file_type: str
    file_bytes: int
    num_params: int
    type_shares: dict[str, float]
    """Share of the parameters held in each tensor type, largest first."""
    odd_rows: float = 0.0
    """Share of the parameters in rows that 256 does not divide: no K type can hold them."""
    imatrix: str | None = None
    """The importance matrix that the file says it was made with."""
    served: str | None = None
    """Where the model was reached, if it was measured over HTTP."""

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.file_bytes / self.num_params if self.num_params else 0.0


def describe(path: Path, name: str) -> ModelFile:
    info = read_gguf(path)
    if info.num_shards > 1:
        raise ValueError(f"{path}: a model split over several files cannot be judged: merge its parts first")
    shares = {share.type: share.num_params / info.num_params for share in info.type_shares()}
    return ModelFile(
        name=name,
        path=str(path),
        sha256=file_sha256(path),
        file_type=_file_type(info),
        file_bytes=info.file_bytes,
        num_params=info.num_params,
        type_shares=shares,
        odd_rows=sum(t.num_params for t in info.tensors if len(t.shape) > 1 and t.shape[0] % 256)
        / info.num_params,
        imatrix=str(matrix) if (matrix := info.metadata.get("quantize.imatrix.file")) else None,
    )


def _file_type(info: GgufInfo) -> str:
    """What the file calls itself; without that, the type of most of its parameters."""
    declared = info.metadata.get("general.file_type")
    if isinstance(declared, int) and declared in _FILE_TYPES:
        return _FILE_TYPES[declared]
    return info.type_shares()[0].type
