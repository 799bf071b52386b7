"""What scripts/build-cuda would do, on machines that are made up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "build-cuda"


def run(
    folder: Path, *arguments: str, capabilities: str | None = "9.0", nvcc: bool = True
) -> subprocess.CompletedProcess[str]:
    """On a machine with such GPUs; None: without a driver."""
    tools = folder / "bin"
    tools.mkdir(exist_ok=True)
    if capabilities is not None:
        _tool(
            tools / "nvidia-smi",
            f'case "$*" in *compute_cap*) printf "{capabilities}\\n";; *) echo a card;; esac',
        )
    if nvcc:
        _tool(tools / "nvcc", 'echo "Cuda compilation tools, release 13.0, V13.0.88"')
    env = {
        "PATH": f"{tools}:/usr/bin:/bin",
        "HOME": os.environ.get("HOME", "/"),
        "PYTHON": sys.executable,
        "CUDA_HOME": str(folder / "no-cuda"),
        "JOBS": "16",
    }
    command = ["bash", str(SCRIPT), "--dry-run", "--check-model", "none", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)


def _tool(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("capabilities", "architectures"),
    [("8.9", "89-real"), ("9.0", "90a-real"), ("12.0", "120a-real"), ("9.0\\n8.6\\n9.0", "86-real;90a-real")],
)
def test_it_builds_for_the_cards_that_are_there(
    tmp_path: Path, capabilities: str, architectures: str
) -> None:
    done = run(tmp_path, capabilities=capabilities)
    assert done.returncode == 0, done.stderr
    assert f"-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES={architectures}\n" in done.stdout
    assert "about 5 minutes with 16 jobs" in done.stdout
    assert "(13.0)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "machine", "message"),
    [
        ((), {"capabilities": None}, "no nvidia-smi"),
        ((), {"nvcc": False}, "no nvcc"),
        (("--no-index",), {}, "--no-index needs --source"),
        (("--no-index", "--source", "."), {}, "--no-index needs --find-links"),
        (("--check-model", "missing.gguf"), {}, "missing.gguf is not there"),
        (("--fast",), {}, "unknown option --fast"),
        (("--source",), {}, "--source needs a value"),
    ],
)
def test_what_is_missing_is_said_at_once(
    tmp_path: Path, arguments: tuple[str, ...], machine: dict[str, bool | None], message: str
) -> None:
    done = run(tmp_path, *arguments, **machine)  # type: ignore[arg-type]
    assert done.returncode == 1
    assert message in done.stderr
