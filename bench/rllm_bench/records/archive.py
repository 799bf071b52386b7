"""A report's records in one file: `records.tar.zst` beside its report.md.

A file in the archive is read under the path that it had before: `reports/X/study/core-q4/run.json` comes from
`reports/X/records.tar.zst`. `tar --zstd -xf records.tar.zst` puts every file back.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import zstandard

NAME = "records.tar.zst"
_LEVEL = 19


def read_bytes(path: Path) -> bytes:
    """The file's content, from the folder or from the archive that took its place.

    Raises:
        FileNotFoundError: neither has it.
    """
    if path.exists() or (found := _packed(path)) is None:
        return path.read_bytes()
    members, name = found
    return members[name]


def exists(path: Path) -> bool:
    """Whether `read_bytes` would find it."""
    return path.is_file() or _packed(path) is not None


def named(name: str, places: Sequence[Path]) -> list[Path]:
    """The files of that name among ``places``, and in those that are folders."""
    found = [place if place.name == name else place / name for place in places]
    return [path for path in found if exists(path)]


def files(folder: Path, suffix: str) -> list[Path]:
    """Every file below ``folder`` that ends in ``suffix``, packed or not, in the order of their paths."""
    found = {path for path in folder.rglob(f"*{suffix}") if path.is_file()}
    for archive in folder.rglob(NAME):
        found |= {archive.parent / name for name in _members(archive) if name.endswith(suffix)}
    return sorted(found)


def write(folder: Path, paths: Sequence[Path]) -> None:
    """Move ``paths``, files below ``folder``, into its archive; the same files give the same bytes."""
    archive = folder / NAME
    partial = archive.with_name(archive.name + ".tmp")
    with partial.open("wb") as raw, zstandard.ZstdCompressor(level=_LEVEL).stream_writer(raw) as out:
        with tarfile.open(fileobj=out, mode="w|") as tar:
            for path in sorted(paths):
                tar.add(path, path.relative_to(folder), filter=_anonymous)
    partial.replace(archive)
    for path in paths:
        path.unlink()
    for place in sorted({parent for path in paths for parent in path.parents}, reverse=True):
        if place.is_relative_to(folder) and not any(place.iterdir()):
            place.rmdir()


def extract(folder: Path) -> None:
    """Every file of the folder's archive, if it has one, in its place instead."""
    archive = folder / NAME
    if archive.is_file():
        with tarfile.open(fileobj=io.BytesIO(_decompressed(archive))) as tar:
            tar.extractall(folder, filter="data")
        archive.unlink()


def _packed(path: Path) -> tuple[Mapping[str, bytes], str] | None:
    """The archive's members and the file's name in it."""
    return next(((names, inside) for inside, names in _above(path) if inside in names), None)


def _above(path: Path) -> list[tuple[str, Mapping[str, bytes]]]:
    """The archives in the folders above ``path``, nearest first, each with the path's name inside it."""
    archives = [(folder / NAME, folder) for folder in path.parents]
    return [
        (path.relative_to(folder).as_posix(), _members(archive))
        for archive, folder in archives
        if archive.is_file()
    ]


def _members(archive: Path) -> Mapping[str, bytes]:
    return _unpacked(archive, archive.stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _unpacked(archive: Path, _written_ns: int) -> Mapping[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(_decompressed(archive))) as tar:
        found = [(info.name, tar.extractfile(info)) for info in tar.getmembers()]
        return {name: content.read() for name, content in found if content is not None}


def _decompressed(archive: Path) -> bytes:
    with archive.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        return stream.read()


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.mtime = info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o644
    return info
