"""Where reference runs are kept: one folder per key, the least recently used go first."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path


class CacheTooSmall(ValueError):
    """One entry alone is larger than the whole cache may be."""


def default_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "rllm" / "quality"


def key_of(*parts: object) -> str:
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()[:24]


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class ReferenceCache:
    """A folder with a size limit. Not safe for two runs that evict at the same time."""

    folder: Path
    limit_bytes: int

    def entry(self, key: str, needed_bytes: int) -> Path:
        """The folder of ``key``, made if missing; others are removed until ``needed_bytes`` fit."""
        if needed_bytes > self.limit_bytes:
            raise CacheTooSmall(
                f"the reference needs {needed_bytes / 1e9:.1f} GB and the cache may hold "
                f"{self.limit_bytes / 1e9:.1f} GB: raise --cache-limit-gb or lower --chunks"
            )
        mine = self.folder / key
        mine.mkdir(parents=True, exist_ok=True)
        os.utime(mine)
        others = sorted((p for p in self.folder.iterdir() if p != mine), key=lambda p: p.stat().st_mtime)
        total = needed_bytes + sum(map(_size, others))
        for other in others:
            if total <= self.limit_bytes:
                break
            total -= _size(other)
            shutil.rmtree(other)
        return mine


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
