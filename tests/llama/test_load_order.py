"""llama.cpp is loaded before other C++ extensions, in both kinds of process: a CUDA build needs it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from rllm.backends.options import LlamaOptions
from rllm.workers.frames import WorkerSpec

LATER = ("numpy",)


def imported(report: str) -> list[str]:
    """Modules by when their import ended, from ``-X importtime``."""
    return [
        line.rpartition("|")[2].strip() for line in report.splitlines() if line.startswith("import time:")
    ]


def assert_first(modules: list[str]) -> None:
    first = modules.index("llama_cpp.llama_cpp")
    for name in LATER:
        assert name in modules
        assert first < modules.index(name)


def test_in_a_worker(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    fd = theirs.fileno()
    spec = WorkerSpec(name="x", fd=fd, model_path=str(tmp_path / "none.gguf"), llama=LlamaOptions())
    command = [sys.executable, "-X", "importtime", "-m", "rllm.workers"]
    with (
        ours,
        theirs,
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[fd]) as worker,
    ):
        assert worker.stdin is not None
        assert worker.stderr is not None
        worker.stdin.write(msgspec.json.encode(spec) + b"\n")
        worker.stdin.flush()
        assert_first(imported(worker.stderr.read().decode()))


def test_in_the_server(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "rllm.cli", "--gguf", str(tmp_path / "none.gguf")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert_first(imported(done.stderr))
