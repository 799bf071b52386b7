"""Files that appear whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

from rllm.errors import HubError


def part_of(target: Path) -> Path:
    """Where a file grows before it is moved to ``target``; in the same folder, so that the move is atomic."""
    return target.with_name(target.name + ".part")


def stamp_of(part: Path) -> Path:
    """Beside a ``part``: which version of the source it is a part of."""
    return part.with_name(part.name + ".etag")


def open_part(part: Path, mode: Literal["wb", "ab", "r+b"]) -> BinaryIO:
    """Nobody else may read it before it is checked, however long it waits to be continued."""

    def private(path: str, flags: int) -> int:
        handle = os.open(path, flags | os.O_NOFOLLOW, 0o600)
        os.fchmod(handle, 0o600)
        return handle

    return open(part, mode, opener=private)  # Path.open takes no opener


def remove_part(part: Path) -> None:
    """There is nothing in it to continue from."""
    part.unlink(missing_ok=True)
    stamp_of(part).unlink(missing_ok=True)


def move_into_place(part: Path, target: Path) -> None:
    """Make ``part`` the new ``target``: after a crash there is the old file or the new one, never half."""
    with part.open("rb") as file:
        os.fchmod(file.fileno(), 0o666 & ~_umask())
        os.fsync(file.fileno())
    part.replace(target)


def replace_text(path: Path, text: str) -> None:
    part = part_of(path)
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def require_space(directory: Path, num_bytes: int) -> None:
    """Refuse to start what cannot be finished, with numbers."""
    free = shutil.disk_usage(directory).free
    if num_bytes > free:
        raise HubError(f"{directory}: {_mib(num_bytes)} are needed and {_mib(free)} are free")


@contextmanager
def space_for(part: Path, num_bytes: int) -> Iterator[None]:
    """Room for ``part`` to grow to ``num_bytes``. Who writes it may not know why a write failed; this knows.

    Raises:
        HubError: there is no room, or there was and somebody else has taken it.
    """
    require_space(part.parent, num_bytes)
    try:
        yield
    except HubError:
        missing = num_bytes - (part.stat().st_size if part.exists() else 0)
        free = shutil.disk_usage(part.parent).free
        if missing > free:
            raise HubError(
                f"{part.parent}: the disk is full: {_mib(missing)} more are needed and {_mib(free)} are free"
            ) from None
        raise


@contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Hold the folder: two set-ups at once would write the same ``.part`` files."""
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting: another rllm-models is working in {directory}", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _umask() -> int:
    """It can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"
