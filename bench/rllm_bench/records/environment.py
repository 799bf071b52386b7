"""The machine and the software of a run: without them a number is an anecdote."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = ("rllm", "llama-cpp-python", "xllamacpp", "aiohttp", "uvloop", "numpy", "uvicorn", "vllm")

_RELEASED = {"llama-cpp-python 0.3.35": "2026-08-17", "llama-cpp-python 0.3.36": "2026-10-01"}
"""Days on which versions came out; an engine that is not here is of unknown age."""


def describe() -> dict[str, Any]:
    checkout = git()
    return {
        "cpu": cpu(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpus": gpus(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: version for name in _PACKAGES if (version := package_version(name))},
        "git": checkout,
        "released": released(checkout.get("date")),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "container": Path("/.dockerenv").exists() or "container" in os.environ,
    }


def cpu() -> dict[str, Any]:
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    flags = set(fields.get("flags", "").split())
    frequency = psutil.cpu_freq()
    return {
        "model": fields.get("model name", platform.processor() or "unknown"),
        "cores_logical": psutil.cpu_count(),
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "features": sorted(
            flags
            & {
                *("fma", "f16c", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
                *("amx_tile", "amx_int8", "amx_bf16"),
            }
        ),
        "max_mhz": frequency.max if frequency else None,
    }


def gpus() -> list[dict[str, Any]]:
    """By NVML: name, memory, driver, power cap and what is already in use."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # NVMLError or no library: a machine without GPUs
        return []
    found = []
    for index in visible_cards(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        found.append(
            {
                "index": index,
                "name": _text(pynvml.nvmlDeviceGetName(handle)),
                "memory_bytes": int(memory.total),
                "memory_used_bytes": int(memory.used),
                "driver": _text(pynvml.nvmlSystemGetDriverVersion()),
                "power_limit_w": _quietly(lambda h=handle: pynvml.nvmlDeviceGetEnforcedPowerLimit(h) / 1000),
                "sm_clock_max_mhz": _quietly(lambda h=handle: pynvml.nvmlDeviceGetMaxClockInfo(h, 1)),
            }
        )
    return found


def first_card() -> int:
    """NVML's index of the first of CUDA_VISIBLE_DEVICES; 0 where that says nothing."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def visible_cards(count: int) -> list[int]:
    """Those of ``count`` that CUDA_VISIBLE_DEVICES leaves; all where it says nothing that is a number."""
    named = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    chosen = [int(part) for part in named if part.isdecimal() and int(part) < count]
    return chosen or list(range(count))


def _quietly(read: Any) -> Any:
    try:
        return read()
    except Exception:  # NVMLError: this card does not tell
        return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def package_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def released(commit_date: str | None) -> dict[str, str]:
    """The day of each known "NAME VERSION"; that of rllm is its commit's."""
    own = {f"rllm {package_version('rllm')}": commit_date} if commit_date else {}
    return _RELEASED | own


def git(folder: Path | None = None) -> dict[str, Any]:
    """Commit of the checkout this code runs from, its day, and whether tracked files differ from it.
    Reports are not counted: a run in progress would make itself dirty."""
    where = folder or Path(__file__).parent
    commit = _git(where, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "dirty": None}
    changed = _git(
        where, "status", "--porcelain", "--untracked-files=no", "--", ":/", ":(exclude,top)reports"
    )
    return {
        "commit": commit,
        "date": _git(where, "show", "--no-patch", "--format=%cs", "HEAD"),
        "dirty": bool(changed),
        "branch": _git(where, "rev-parse", "--abbrev-ref", "HEAD"),
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def command_line() -> str:
    return " ".join(["rllm-bench", *sys.argv[1:]])
