"""Does a build compute on this machine: asked of processes that may crash."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from rllm.backends.llama import proof
from tests.tinymodel import write_tiny_model

ROOT = Path(__file__).parents[2]
CHILD = "rllm.backends.llama.proof"


def test_a_model_that_computes_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert proof._run(CHILD, str(proof._write_model(tmp_path / "F16.gguf")), "32") is None
    assert "F16, 32 rows" in capsys.readouterr().err


def test_one_that_gives_nonsense_is_told(tmp_path: Path) -> None:
    bad = write_tiny_model(tmp_path / "bad.gguf", output_gain=float("nan"))
    assert proof._run(CHILD, str(bad), "1") == "logits that are not finite"


@pytest.mark.parametrize("number", ["ILL", "SEGV"])
def test_a_crash_is_told_by_its_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str) -> None:
    crashing = tmp_path / "python"
    crashing.write_text(f"#!/bin/sh\nkill -{number} $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crashing))
    assert proof._run(CHILD, "model.gguf", "1") == f"SIG{number}"
    assert next(iter(proof._failures(tmp_path / "F16.gguf"))) == f"F16, 32 rows: SIG{number}"


def test_one_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = tmp_path / "python"
    endless.write_text("#!/bin/sh\nexec sleep 1000\n")
    endless.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(endless))
    monkeypatch.setattr(proof, "_CHILD_LIMIT_S", 0.2)
    assert proof._run(CHILD, "model.gguf", "1") == "no end after 0 s"


@pytest.mark.slow  # half a minute
def test_every_type_that_is_shipped_is_proven_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert proof.main() == 0
    rates = re.findall(r"^(\w+), (\d+) rows", capsys.readouterr().err, re.MULTILINE)
    assert rates == [(name, str(rows)) for name in proof.TYPES for rows in proof.ROWS]


def test_the_patches_are_for_the_pinned_version() -> None:
    """Whoever raises the pin looks at both again."""
    version = re.search(r"^llama-cpp-python==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert version
    for patch in ("cpu", "cuda"):
        text = (ROOT / "scripts" / patch / "kernels.patch").read_text()
        assert f"llama-cpp-python {version[1]})" in text
