"""Every process loads llama.cpp before numpy: with a CUDA build anything else crashes.

The build here has no CUDA; a file of that name beside its libraries makes the guard believe it has.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rllm.backends.llama import lib

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "lib"
    folder.mkdir()
    for library in lib.library_folder().iterdir():
        (folder / library.name).symlink_to(library)
    (folder / "libggml-cuda.txt").touch()
    return {**os.environ, "LLAMA_CPP_LIB_PATH": str(folder)}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=100, check=False
    )


@pytest.mark.parametrize(
    "module",
    [
        "rllm.main",
        "rllm.backends.llama.importance",
        "rllm_bench.ceiling.worker",
        "rllm_bench.quality.__main__",
    ],
)
def test_whatever_loads_a_model_has_the_right_order(environment: dict[str, str], module: str) -> None:
    done = run(environment, "-c", f"import {module}, sys; assert 'llama_cpp' in sys.modules")
    assert done.returncode == 0, done.stderr


def test_the_wrong_order_is_refused_in_words(environment: dict[str, str]) -> None:
    done = run(environment, "-c", "import numpy, rllm.backends.llama")
    assert "import rllm.backends.llama before numpy" in done.stderr


@pytest.mark.slow
def test_a_server_with_its_worker_starts_and_answers(environment: dict[str, str], tiny_model: Path) -> None:
    done = run(environment, "-m", "micro.load_order", "--gguf", str(tiny_model))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "numpy, then rllm: exit 1: ImportError" in done.stdout
    assert "answered 5 tokens" in done.stdout
