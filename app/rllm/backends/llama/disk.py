"""Stored prefixes on disk: a folder of one worker, and the one thread that reads and writes it.

    DIR/<model>-<fingerprint>-<number>/    the number is the first that no living worker has locked
        lock
        0000002a.prefix                    the key, in hexadecimal

The folder is used again by the next worker with the same model and the same settings. Folders of the same
model file with other settings, or from before the file was changed, are removed unless a worker lives there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from time import perf_counter

from rllm.backends.llama import state_file
from rllm.backends.llama.state_file import SUFFIX, Refused, State
from rllm.engine.port import StoredPrefix
from rllm.errors import StartError

Log = Callable[[str, str], None]
_NICENESS = 10
"""Of the disk's thread: decoding goes first."""


@dataclass(frozen=True, slots=True)
class Written:
    key: int
    problem: str = ""
    """Why it was not written, for the log."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """``state`` is None where the file was refused; it is gone then."""

    key: int
    state: State | None
    seconds: float
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Write:
    key: int
    tokens: Sequence[int]
    salt: str


@dataclass(frozen=True, slots=True)
class _Read:
    key: int
    identity: bytes


@dataclass(frozen=True, slots=True)
class _Delete:
    key: int


class Disk:
    """Called by the engine's thread; nothing here waits for a file, but for the constructor."""

    def __init__(self, folder: Path, model: Path, fingerprint: str, log: Log) -> None:
        """
        Args:
            log: hears of what is deleted now; later problems come with the events.

        Raises:
            StartError: the folder cannot be used.
        """
        self._fingerprint = fingerprint
        self._identities: dict[int, bytes] = {}
        """Of what is on disk or about to be: a file must still be the same prefix when it is read."""
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _remove_outdated(folder, _model_id(model), fingerprint)
            self._folder, self._lock = _claim(folder, f"{_model_id(model)}-{fingerprint[:16]}")
            self.stored = tuple(self._scan(log))
        except OSError as error:
            raise StartError(f"prefix store: {error.filename or folder}: {error.strerror}") from None
        self._waiting: dict[int, State] = {}
        """States that are to be written; taking one out cancels that."""
        self._jobs: SimpleQueue[_Write | _Read | _Delete | None] = SimpleQueue()
        self._done: SimpleQueue[Written | Loaded] = SimpleQueue()
        self._something_done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefix-disk", daemon=True)
        self._thread.start()

    def write(self, key: int, tokens: Sequence[int], salt: str, state: State) -> None:
        self._waiting[key] = state
        self._identities[key] = state_file.identity(state_file.as_bytes(tokens), salt)
        self._jobs.put(_Write(key, tokens, salt))

    def read(self, key: int) -> None:
        self._jobs.put(_Read(key, self._identities.get(key, b"")))  # nothing has that one

    def delete(self, key: int) -> None:
        self._waiting.pop(key, None)
        self._identities.pop(key, None)
        self._jobs.put(_Delete(key))

    def take_done(self) -> Iterator[Written | Loaded]:
        self._something_done.clear()
        while not self._done.empty():
            yield self._done.get()

    def wait(self, seconds: float) -> None:
        """Until something is done."""
        self._something_done.wait(seconds)

    def close(self) -> None:
        """What was not written yet is not kept."""
        self._waiting.clear()
        self._jobs.put(None)
        self._thread.join(timeout=30)
        os.close(self._lock)

    # --- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # on Linux a thread has a niceness of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while (job := self._jobs.get()) is not None:
            match job:
                case _Write():
                    self._write(job)
                case _Read():
                    self._read(job.key, job.identity)
                case _Delete(key):
                    self._delete(key)

    def _write(self, job: _Write) -> None:
        state = self._waiting.pop(job.key, None)
        if state is None:
            return
        try:
            state_file.write(self._path(job.key), self._fingerprint, job.tokens, job.salt, state)
        except OSError as error:
            self._tell(Written(job.key, f"{error.filename}: {error.strerror}"))
        else:
            self._tell(Written(job.key))

    def _read(self, key: int, identity: bytes) -> None:
        began, state, problem = perf_counter(), None, ""
        try:
            state = state_file.read_state(self._path(key), self._fingerprint, identity)
            os.utime(self._path(key))  # least recently used first, when the folder is used again
        except (Refused, OSError, MemoryError) as error:
            problem = f"{self._path(key)} is deleted: {error}"
            self._delete(key)
        self._tell(Loaded(key, state, perf_counter() - began, problem))

    def _delete(self, key: int) -> None:
        with contextlib.suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def _tell(self, event: Written | Loaded) -> None:
        self._done.put(event)
        self._something_done.set()

    # --- the folder -----------------------------------------------------------------------------

    def _path(self, key: int) -> Path:
        return self._folder / f"{key:08x}{SUFFIX}"

    def _scan(self, log: Log) -> Iterator[StoredPrefix]:
        """What can be used of what is there; the rest is deleted."""
        paths = [path for path in self._folder.iterdir() if path.name != "lock"]
        for path in sorted(paths, key=lambda path: path.lstat().st_mtime):
            try:
                key = int(path.stem, 16) if path.suffix == SUFFIX else -1
                if path != self._path(key) or path.is_symlink():
                    raise Refused("not a stored prefix")
                header = state_file.read_header(path, self._fingerprint)
                stored = StoredPrefix(key, header.token_ids(), header.salt, header.num_bytes)
            except (Refused, ValueError, OSError) as error:
                log("warning", f"prefix store: {path} is deleted: {error}")
                _remove(path)
            else:
                self._identities[key] = header.identity
                yield stored


def _model_id(model: Path) -> str:
    return hashlib.sha256(os.fsencode(model.resolve())).hexdigest()[:12]


def _claim(parent: Path, name: str) -> tuple[Path, int]:
    number = 0
    while True:
        folder = parent / f"{name}-{number}"
        folder.mkdir(exist_ok=True, mode=0o700)
        if (lock := _lock(folder)) is not None:
            return folder, lock
        number += 1


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the folder's lock while it is open; None where somebody else has it."""
    lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _remove_outdated(parent: Path, model: str, fingerprint: str) -> None:
    for folder in parent.glob(f"{model}-*"):
        if folder.name.startswith(f"{model}-{fingerprint[:16]}-") or not (folder / "lock").exists():
            continue
        if (lock := _lock(folder)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
