"""What a GGUF file says about itself, read from its header without loading it.

Needs neither llama.cpp nor numpy: the API process may use it before any of the two is imported, and
it reads a 128k-token vocabulary in a fraction of a second because it steps over long arrays.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rllm.errors import StartError
from rllm.files.gguf_reader import TENSOR_TYPES, LongArray, Reader, Tensor, Value
from rllm.files.regular_file import open_regular

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""What a KV cache may be stored as."""


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
        name = self.metadata.get("general.name")
        return name if isinstance(name, str) else self.path.stem

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
        with open_regular(path) as file:
            magic = file.read(4)
            if magic != b"GGUF":
                raise StartError(f"{path}: not a GGUF file (it begins with {magic!r})")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                metadata, tensors = Reader(path, data).read()
                return GgufInfo(path, len(data), metadata, tensors)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror or error}") from None


def read_model(path: Path | str) -> GgufInfo:
    """Like `read_gguf`, of all files of a model that was split: the first one's metadata, all tensors.

    Raises:
        StartError: also where a part is missing.
    """
    parts = [read_gguf(part) for part in shard_paths(Path(path))]
    first = parts[0]
    if len(parts) == 1:
        return first
    tensors = tuple(tensor for part in parts for tensor in part.tensors)
    return GgufInfo(first.path, sum(part.file_bytes for part in parts), first.metadata, tensors)


def model_name(path: Path) -> str:
    """The file's name, without what tells it from the other files of its model."""
    return re.sub(r"(-\d{5}-of-\d{5})?\.gguf$", "", path.name)


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
    key_dim, value_dim = (number(f"attention.{name}_length", head_dim) for name in ("key", "value"))

    def layer(num: object) -> int:
        if not isinstance(num, int):
            return 0
        return _row_bytes(type_k, num * key_dim) + _row_bytes(type_v, num * value_dim)

    if isinstance(kv_heads, list):
        return sum(map(layer, kv_heads))
    return number("block_count") * layer(kv_heads)


_BLOCKS = {name.lower(): (elements, size) for name, elements, size in TENSOR_TYPES.values()}


def _row_bytes(type_name: str, elements: int) -> int:
    block, size = _BLOCKS[type_name.lower()]
    return -(-elements // block) * size


def shard_paths(path: Path) -> list[Path]:
    """The files of a model that was split as "name-00001-of-00003.gguf"; the file itself otherwise."""
    match = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})\.gguf", path.name)
    if match is None:
        return [path]
    count = int(match[2])
    return [path.with_name(f"{match[1]}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1)]
