"""The command on a tiny model with llama.cpp's real kernels: the gate lets it through or refuses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rllm.modelhub.quantizing import QuantizeJob, quantize
from rllm_bench.quality.faults import scale_rope_base, zero_tensor
from tests.tinymodel import write_tiny_model

LIMITS = """
[[class]]
name = "tiny"
file_types = ["*"]
max_mean_kld = 0.006
min_same_top = 0.9
min_flip_p = 0.05
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder / "base.gguf")
    quantize(QuantizeJob(folder / "base.gguf", folder / "q8.gguf", "Q8_0", threads=1))
    zero_tensor(folder / "q8.gguf", folder / "zeroed.gguf", "blk.1.ffn_down.weight")
    scale_rope_base(folder / "q8.gguf", folder / "rope.gguf", 0.01)
    (folder / "text.txt").write_text("in the beginning the cat sat and then the hat ran after the cat. " * 40)
    pairs = [{"good": f"the cat {i} sat", "bad": f"cat the {i} sat"} for i in range(30)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (folder / "limits.toml").write_text(LIMITS)
    return folder


def run(folder: Path, variant: str, *more: str) -> subprocess.CompletedProcess[str]:
    options = {
        "--reference": "base.gguf",
        "-o": f"out-{variant}",
        "--ctx": 64,
        "--chunks": 8,
        "--prompts": 3,
        "--prompt-tokens": 8,
        "--threads": 1,
        "--gpu-layers": 0,
        "--cache-dir": "cache",
        "--thresholds": "limits.toml",
    }
    command = [sys.executable, "-m", "rllm_bench.quality", f"{variant}.gguf", "--gate"]
    command += [str(part) for option in options.items() for part in option]
    command += ["--data", "text=text.txt", "--data", "pairs=pairs.jsonl", *more]
    return subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False)


def test_a_sound_variant_passes_and_is_reported(folder: Path) -> None:
    done = run(folder, "q8")
    assert done.returncode == 0, done.stderr
    assert "q8 passes" in done.stdout
    report = (folder / "out-q8/report.md").read_text()
    assert "noise: batch 1 against 32" in report
    assert (folder / "out-q8/quality.png").exists()
    stored = json.loads((folder / "out-q8/quality.json").read_text())
    assert stored["variants"][0]["mean_kld"] == stored["variants"][0]["divergence"]["kld_mean"]["value"]
    assert stored["peak_memory_bytes"] > 0


@pytest.mark.parametrize("variant", [pytest.param("zeroed", marks=pytest.mark.slow), "rope"])
def test_a_broken_variant_fails_the_gate(folder: Path, variant: str) -> None:
    done = run(folder, variant)
    assert done.returncode == 1, done.stderr
    assert f"{variant} fails" in done.stdout


def test_a_second_run_reads_the_records(folder: Path) -> None:
    first = run(folder, "q8")
    stamps = {p: p.stat().st_mtime_ns for p in (folder / "out-q8/variants").rglob("*") if p.is_file()}
    second = run(folder, "q8")
    assert first.stdout == second.stdout
    assert stamps == {p: p.stat().st_mtime_ns for p in (folder / "out-q8/variants").rglob("*") if p.is_file()}


def test_a_text_too_short_is_said_in_one_line(folder: Path) -> None:
    (folder / "short.txt").write_text("too short")
    done = run(folder, "q8", "--data", "text=short.txt")
    assert done.returncode == 1
    assert "Error: the text has" in done.stderr
    assert "Traceback" not in done.stderr
