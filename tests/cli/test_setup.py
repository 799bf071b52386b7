"""What scripts/setup builds, proves and keeps, with a pip and a compiler that are made up."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLAIN = "-DLLAVA_BUILD=OFF"
FLAGS = "flags : fpu avx2 avx512f amx_tile amx_int8\n"

# A wheel is a text file with the options it was built with; what is installed is a copy of it.
PYTHON = """#!/usr/bin/env bash
set -u
me=$(readlink -f "$0")
case "$*" in
    "-m venv --clear "*)
        mkdir -p "$4/bin" && cp "$me" "$4/bin/python"
        printf '#!/bin/sh\\n' >"$4/bin/rllm-models" && chmod 755 "$4/bin/rllm-models" ;;
    *" download "*)
        while [ "$1" != --dest ]; do shift; done
        mkdir -p "$2/llama" && touch "$2/llama/pyproject.toml"
        tar -czf "$2/llama_cpp_python-0.tar.gz" -C "$2" llama && rm -r "$2/llama" ;;
    *" wheel "*)
        while [ "$1" != --wheel-dir ]; do shift; done
        mkdir -p "$2" && echo "$CMAKE_ARGS" | tee -a "$FAKE/builds" \\
            >"$2/llama_cpp_python-$FAKE_VERSION-py3-none-any.whl" ;;
    *" install "*--force-reinstall*) cp "${@: -1}" "$FAKE/installed" ;;
    *rllm.backends.llama.proof*)
        for word in $FAKE_CRASHES_WITHOUT; do
            grep -q -- "$word" "$FAKE/installed" || { echo "Q8_0, 32 rows: SIGILL"; exit 1; }
        done ;;
esac
"""


class Machine:
    """A checkout of the scripts and a home of its own. ``crashes_without``: words that must be among the
    options of a build, or the proof fails."""

    def __init__(self, folder: Path) -> None:
        self.root, self.fake, self.home = folder / "checkout", folder / "fake", folder / "home"
        for path in (self.fake, self.home, self.root):
            path.mkdir()
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        for file in ROOT.glob("requirements*.lock"):
            shutil.copy(file, self.root)
        shutil.copy(ROOT / "pyproject.toml", self.root)
        (self.fake / "cpuinfo").write_text(FLAGS)
        for name, text in {
            "python3": PYTHON,
            "patch": "#!/bin/sh\ncat >/dev/null\n",
            "cc": "",
            "c++": "",
        }.items():
            (self.fake / name).write_text(text or "#!/bin/sh\n")
            (self.fake / name).chmod(0o755)
        lines = (ROOT / "requirements.lock").read_text().splitlines()
        entry = next(line for line in lines if line.startswith(("llama-cpp-python==", "llama_cpp_python==")))
        self.version = entry.split("==")[1].split()[0]

    def setup(self, *, cmake_args: str = "", crashes_without: str = "") -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": f"{self.fake}:/usr/bin:/bin",
            "HOME": str(self.home),
            "PYTHON": str(self.fake / "python3"),
            "CPUINFO": str(self.fake / "cpuinfo"),
            "FAKE": str(self.fake),
            "FAKE_VERSION": self.version,
            "FAKE_CRASHES_WITHOUT": crashes_without,
            "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
        }
        if cmake_args:
            env["CMAKE_ARGS"] = cmake_args
        command = ["bash", str(self.root / "scripts" / "setup")]
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)

    @property
    def builds(self) -> list[str]:
        return (self.fake / "builds").read_text().splitlines()

    @property
    def installed(self) -> str:
        return (self.fake / "installed").read_text().strip()

    @property
    def kept(self) -> list[str]:
        wheels = (self.home / ".cache" / "rllm" / "wheels").glob("*/*")
        return sorted(path.read_text().strip() for path in wheels)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_build_that_is_proven_is_kept_and_made_once(machine: Machine) -> None:
    done = machine.setup()
    assert done.returncode == 0, done.stderr
    assert "proving it" in done.stderr
    assert machine.builds == machine.kept == [PLAIN]
    shutil.rmtree(machine.root / ".venv")
    again = machine.setup()
    assert again.returncode == 0, again.stderr
    assert "building" not in again.stderr
    assert machine.builds == [PLAIN]


def test_an_instruction_set_that_crashes_is_left_out_and_one_line_says_so(machine: Machine) -> None:
    done = machine.setup(crashes_without="mno-amx-tile")
    assert done.returncode == 0, done.stderr
    assert "it crashes on this machine: Q8_0, 32 rows: SIGILL" in done.stderr
    assert "llama.cpp is built without AMX" in done.stderr
    assert len(machine.builds) == 2
    (kept,) = machine.kept
    assert kept == machine.installed
    assert kept.endswith("-DRLLM_CPU_FLAGS=-mno-amx-tile;-mno-amx-int8;-mno-amx-bf16")


def test_the_next_instruction_set_is_tried_and_the_operators_own_options_stay(machine: Machine) -> None:
    done = machine.setup(cmake_args="-DGGML_OPENMP=OFF", crashes_without="mno-avx512f")
    assert done.returncode == 0, done.stderr
    assert "llama.cpp is built without AVX-512" in done.stderr
    assert machine.installed == f"{PLAIN} -DGGML_OPENMP=OFF -DRLLM_CPU_FLAGS=-mno-avx512f"


def test_where_nothing_helps_it_says_what_follows_and_goes_on(machine: Machine) -> None:
    done = machine.setup(crashes_without="never")
    assert done.returncode == 0, done.stderr
    assert "rllm-serve will try safer options" in done.stderr
    assert len(machine.builds) == 3
    assert machine.kept == [machine.installed] == [PLAIN]


def test_what_the_processor_does_not_show_is_not_built_without(machine: Machine) -> None:
    (machine.fake / "cpuinfo").write_text("flags : fpu avx2\n")
    assert machine.setup(crashes_without="never").returncode == 0
    assert machine.builds == [PLAIN]


def test_other_options_give_another_build_and_the_first_ones_their_own_again(machine: Machine) -> None:
    for options, expected in (("", PLAIN), ("-DGGML_AVX512=OFF", f"{PLAIN} -DGGML_AVX512=OFF"), ("", PLAIN)):
        assert machine.setup(cmake_args=options).returncode == 0
        assert machine.installed == expected
    assert machine.builds == [PLAIN, f"{PLAIN} -DGGML_AVX512=OFF"]


def test_a_build_that_was_interrupted_is_not_taken_for_a_proven_one(machine: Machine) -> None:
    assert machine.setup().returncode == 0
    (kept,) = (machine.home / ".cache" / "rllm" / "wheels").glob("*/*.whl")
    unproven = kept.parent / "build.abc" / "wheel"
    unproven.mkdir(parents=True)
    kept.rename(unproven / kept.name)
    shutil.rmtree(machine.root / ".venv")
    assert machine.setup().returncode == 0
    assert len(machine.builds) == 2
