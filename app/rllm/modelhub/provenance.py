"""``x.gguf.json`` beside ``x.gguf``: where the file came from, and the checksum of what was put there.

The sidecar also keeps size and modification time, so that an untouched file is recognised without
reading it again. It is written before the file is moved into place: a file without a sidecar was not
made here, or its maker died in between.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import Enum
from importlib import metadata
from pathlib import Path

import msgspec

from rllm.errors import HubError
from rllm.files.regular_file import open_regular
from rllm.modelhub.files import replace_text

_CHUNK = 1 << 20
_MOST_SIDECAR_BYTES = 1 << 20


class Ancestor(msgspec.Struct, frozen=True, kw_only=True):
    """One file on the way from the original to this one; the nearest comes first."""

    file: str
    type: str
    sha256: str


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    schema: int = 1
    file: str
    sha256: str
    size_bytes: int
    mtime_ns: int
    made_by: str
    """"fetched" or "quantized"."""
    type: str
    date: str
    tools: dict[str, str]
    origin: str | None = None
    """Where a fetched file came from."""
    licence: str | None = None
    sources: tuple[Ancestor, ...] = ()
    requantized: bool = False
    """The direct source, or a known ancestor, was already quantized: its losses are in this file too."""
    imatrix: str | None = None
    """The importance matrix it was made with: file and checksum."""
    tensor_types: tuple[str, ...] = ()
    """Types that single tensors were told to have, as given."""
    sampling: dict[str, float] = {}
    """Recommended sampling, for rllm-serve."""
    num_fallbacks: int = 0
    """Tensors whose rows did not fit the type, and got another one."""


class State(Enum):
    ABSENT = "absent"
    CURRENT = "current"
    FOREIGN = "foreign"
    """There is a file but no sidecar."""
    CHANGED = "changed"
    """The file is not the one that the sidecar describes."""


def sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def load(path: Path) -> Provenance | None:
    """The provenance of a model file, if it has one that can be read."""
    try:
        with open_regular(sidecar(path)) as file:
            return msgspec.json.decode(file.read(_MOST_SIDECAR_BYTES), type=Provenance)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def save(path: Path, record: Provenance) -> None:
    text = msgspec.json.format(msgspec.json.encode(record), indent=2).decode()
    replace_text(sidecar(path), text + "\n")


def state_of(path: Path) -> State:
    """Compare a file with its sidecar; reads the whole file only where time or size moved."""
    if not path.exists():
        return State.ABSENT
    record = load(path)
    if record is None:
        return State.FOREIGN
    stat = path.stat()
    if (stat.st_size, stat.st_mtime_ns) == (record.size_bytes, record.mtime_ns):
        return State.CURRENT
    if stat.st_size != record.size_bytes or sha256_of(path) != record.sha256:
        return State.CHANGED
    save(path, msgspec.structs.replace(record, mtime_ns=stat.st_mtime_ns))
    return State.CURRENT


def checksum(path: Path) -> str:
    """The file's sha256, from the sidecar where that still describes the file."""
    record = load(path)
    if record is not None:
        stat = path.stat()
        if (stat.st_size, stat.st_mtime_ns) == (record.size_bytes, record.mtime_ns):
            return record.sha256
    return sha256_of(path)


def checksum_of_model(parts: Sequence[Path]) -> str:
    """The file's sha256; of several, that of all their bytes in order (`cat PARTS | sha256sum`)."""
    if len(parts) == 1:
        return checksum(parts[0])
    digest = hashlib.sha256()
    for part in parts:
        _add(digest, part)
    return digest.hexdigest()


def sha256_of(path: Path, advance: Callable[[int], None] | None = None) -> str:
    digest = hashlib.sha256()
    _add(digest, path, advance)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, path: Path, advance: Callable[[int], None] | None = None) -> None:
    done = 0
    try:
        with open_regular(path) as file:
            while block := file.read(_CHUNK):
                digest.update(block)
                done += len(block)
                if advance is not None:
                    advance(done)
    except OSError as error:
        raise HubError(f"{path}: {error.strerror or error}") from None


def tool_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("rllm", "llama-cpp-python"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
