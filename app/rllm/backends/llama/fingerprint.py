"""Which model and which settings a stored state belongs to: states of others must never be restored.

llama.cpp checks little of it (layers, types, row sizes) and ends the process on some of what it finds.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping
from pathlib import Path

from rllm.backends.llama import lib
from rllm.files.gguf_info import shard_paths

_HEAD, _SAMPLE, _NUM_SAMPLES = 4 * 2**20, 64 * 2**10, 64


def fingerprint(model: Path, settings: Mapping[str, object]) -> str:
    """Names the model by the size, age, head and evenly spaced samples of its files: reading all of a large
    model would delay its start by more than a store can win."""
    digest = hashlib.sha256()
    for shard in shard_paths(model):
        _add_file(digest, shard)
    versions = {"llama-cpp-python": importlib.metadata.version("llama-cpp-python")}
    for name, value in sorted({**settings, **versions}.items()):
        digest.update(f"{name}={value}\n".encode())
    return digest.hexdigest()


def build_id() -> str:
    """Names the libraries of llama.cpp that are loaded, whenever they were installed."""
    digest = hashlib.sha256()
    for library in sorted(lib.library_folder().glob("*.so")) or sorted(lib.library_folder().iterdir()):
        digest.update(library.name.encode())
        _add_content(digest, library)
    return digest.hexdigest()[:16]


def _add_file(digest: hashlib._Hash, path: Path) -> None:
    digest.update(f"{path.stat().st_mtime_ns}\n".encode())
    _add_content(digest, path)


def _add_content(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as file:
        size = path.stat().st_size
        digest.update(f"{size}\n".encode())
        digest.update(file.read(_HEAD))
        for index in range(_NUM_SAMPLES + 1):
            file.seek(max(0, size - _SAMPLE) * index // _NUM_SAMPLES)
            digest.update(file.read(_SAMPLE))
