"""What was found out about a model on this machine, kept for the next start: one file per model and machine.

What applies to an option, the first that there is: what the operator chose, the fall-back without which the
model does not compute here, what was measured to be best, and the rule in the code. A file belongs to the
model (its content), the processor and GPUs, and the build of llama.cpp; with another of these it is not read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from rllm.backends.options import Fallback, LlamaOptions
from rllm.serving.observer import Observer


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """What a race between options said."""

    options: dict[str, str | int]
    """Those that are faster than the rule; none where the rule was not beaten."""
    use: str
    """What the server is for: chat, long, throughput or latency."""
    how: str
    """quick or full."""
    rounds: int


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """The content of one file."""

    model: str
    """Path of the file that it was found with; for people."""
    machine: dict[str, Any]
    """The same: what the name of the file stands for."""
    fallback: Fallback | None = None
    tuned: Tuned | None = None


Fingerprint = Callable[[Path, Mapping[str, object]], str]
"""Names a model file together with a machine."""


class ProfileStore:
    """The profiles in one folder that belong to one machine."""

    def __init__(self, folder: Path, machine: Mapping[str, object], fingerprint: Fingerprint) -> None:
        self.folder = folder
        self._machine = dict(machine)
        self._fingerprint = fingerprint

    def path(self, model: Path) -> Path:
        name = model.name.removesuffix(".gguf")
        return self.folder / f"{name}-{self._fingerprint(model, self._machine)[:16]}.json"

    def load(self, model: Path) -> Profile | None:
        """None: there is none, or it cannot be read, which costs no more than finding it out again."""
        try:
            return msgspec.json.decode(self.path(model).read_bytes(), type=Profile)
        except (OSError, msgspec.DecodeError):
            return None

    def update(self, model: Path, **found: object) -> Path:
        """Keep what was ``found``, beside what is known already.

        Raises:
            OSError: the folder cannot be written to.
        """
        known = self.load(model) or Profile(model=str(model.absolute()), machine=self._machine)
        path = self.path(model)
        _write(path, msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(known, **found))))
        return path


@dataclass(frozen=True, slots=True)
class Applied:
    """Options with what a profile knows, and what of it was not chosen otherwise."""

    options: LlamaOptions
    fallback: Fallback | None = None
    tuned: dict[str, str | int] = field(default_factory=dict)


def apply(profile: Profile | None, options: LlamaOptions) -> Applied:
    """Explicit options stay; a fall-back comes before what was measured."""
    if profile is None:
        return Applied(options)
    safe: dict[str, str] = {}
    if (fallback := profile.fallback) is not None:
        safe = {name: value for name, value in fallback.options.items() if is_open(options, name)}
        options = msgspec.structs.replace(options, **safe)
        fallback = Fallback(options=safe, reason=fallback.reason) if safe else None
    best: dict[str, str | int] = {}
    if profile.tuned is not None:
        best = {name: value for name, value in profile.tuned.options.items() if is_open(options, name)}
        options = msgspec.structs.replace(options, **best)
    return Applied(options, fallback, best)


def is_open(options: LlamaOptions, name: str) -> bool:
    """Whether nobody has chosen it. What there is no option for, as in a file of another version, is not."""
    value = getattr(options, name, None)
    return value == "auto" or (type(value) is int and value == 0)


class ProfileKeeper(Observer):
    """Writes down what the instances find out."""

    def __init__(
        self, store: ProfileStore, files: Mapping[str, Path], say: Callable[[str, dict[str, str]], None]
    ) -> None:
        """``files``: the model file by the served name. ``say`` hears of a profile that was kept or could not
        be."""
        self._store = store
        self._files = files
        self._say = say

    def on_fallback(self, model: str, instance: str, fallback: Fallback) -> None:
        file = self._files[model]
        known = self._store.load(file)
        if not fallback.certain or (known is not None and known.fallback == fallback):
            return
        try:
            path = self._store.update(file, fallback=fallback)
        except OSError as error:
            self._say("profile not kept", {"model": model, "error": str(error)})
        else:
            self._say("profile kept", {"model": model, "path": str(path)})


def default_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "rllm" / "profiles"


def describe_machine(build: str, gpus: Sequence[str]) -> dict[str, object]:
    """What a profile depends on, beside its model. ``gpus``: name and driver of each."""
    lines = _cpuinfo()
    flags = lines.get("flags") or lines.get("Features") or ""
    return {
        "cpu": lines.get("model name") or platform.processor() or platform.machine(),
        "cpu_features": hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()[:16],
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": list(gpus),
        "llama_cpp": build,
    }


def _cpuinfo() -> dict[str, str]:
    """Of the first processor."""
    found: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            found.setdefault(key.strip(), value.strip())
    return found


def _write(path: Path, text: bytes) -> None:
    """Whole or not at all, whoever else writes it at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as part:
        part.write(text)
    Path(part.name).replace(path)
