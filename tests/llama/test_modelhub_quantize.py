"""Quantizing writes a whole file with its provenance, or nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rllm.errors import HubError, StartError
from rllm.files.gguf_info import read_gguf
from rllm.modelhub import files, provenance
from rllm.modelhub.catalog import Model, PathSource, Variant
from rllm.modelhub.child import _reason
from rllm.modelhub.pull import Pull
from rllm.modelhub.quantizing import QuantizeJob, quantize
from tests.unit.modelhub_files import sha256, write_gguf


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "f16.gguf")


def _job(source: Path, type_name: str, *, allow_requantize: bool = False) -> QuantizeJob:
    target = source.with_name(f"{type_name}.gguf")
    return QuantizeJob(source, target, type_name, allow_requantize=allow_requantize, threads=1)


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_the_result_has_the_type_and_says_what_it_was_made_of(source: Path) -> None:
    record = quantize(_job(source, "Q4_K_M"))
    target = source.with_name("Q4_K_M.gguf")
    types = {share.type for share in read_gguf(target).type_shares()}
    assert "Q4_K" in types
    assert "F16" not in types
    assert record == provenance.load(target)
    assert record.sha256 == sha256(target.read_bytes())
    assert [(s.file, s.type, s.sha256) for s in record.sources] == [
        ("f16.gguf", "F16", sha256(source.read_bytes()))
    ]
    assert (record.type, record.requantized, record.imatrix, record.num_fallbacks) == (
        "Q4_K_M",
        False,
        None,
        0,
    )
    assert record.tools["llama-cpp-python"] == "0.3.36"
    assert _names(source.parent) == ["Q4_K_M.gguf", "Q4_K_M.gguf.json", "f16.gguf"]


def test_a_quantized_source_is_refused_unless_allowed(source: Path) -> None:
    quantize(_job(source, "Q8_0"))
    q8 = source.with_name("Q8_0.gguf")
    with pytest.raises(HubError, match="--allow-requantize"):
        quantize(_job(q8, "Q4_0"))
    assert not source.with_name("Q4_0.gguf").exists()
    record = quantize(_job(q8, "Q4_0", allow_requantize=True))
    assert record.requantized
    assert [ancestor.type for ancestor in record.sources] == ["Q8_0", "F16"]


def test_an_f16_made_from_a_quantized_file_hands_its_history_down(source: Path) -> None:
    quantize(_job(source, "Q8_0"))
    quantize(_job(source.with_name("Q8_0.gguf"), "F32", allow_requantize=True))
    record = quantize(_job(source.with_name("F32.gguf"), "Q4_0"))
    assert record.requantized
    assert [ancestor.type for ancestor in record.sources] == ["F32", "Q8_0", "F16"]


def test_rows_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    record = quantize(_job(write_gguf(tmp_path / "narrow.gguf", width=64), "Q4_K_M"))
    assert record.num_fallbacks == 7  # all matrices but ffn_down, whose rows are 256


def test_a_truncated_source_is_refused_before_anything_is_written(source: Path) -> None:
    source.write_bytes(source.read_bytes()[:-5000])
    with pytest.raises(StartError, match="truncated"):
        quantize(_job(source, "Q8_0"))
    assert _names(source.parent) == ["f16.gguf"]


def test_a_source_that_llama_cpp_refuses_leaves_nothing(source: Path) -> None:
    damaged = source.read_bytes().replace(b"llama.context_length", b"llama.context_lengtx")
    source.write_bytes(damaged)
    with pytest.raises(HubError, match="context_length"):
        quantize(_job(source, "Q8_0"))
    assert _names(source.parent) == ["f16.gguf"]


def test_the_source_is_never_its_own_target(source: Path) -> None:
    with pytest.raises(HubError, match="same file"):
        quantize(QuantizeJob(source, source, "Q8_0"))
    assert read_gguf(source).num_params > 0


_STALLED = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started without
from pathlib import Path
from rllm.modelhub import cli, quantizing
def stalled(job, part, *, dry_run):
    part.write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
    yield {}
quantizing._expected_bytes = lambda job, part: 0
quantizing._events = stalled
sys.argv = ["rllm-models", "quantize", sys.argv[1], "Q8_0", "-o", sys.argv[2]]
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_no_file(source: Path, number: signal.Signals) -> None:
    target = source.with_name("q8.gguf")
    command = [sys.executable, "-c", _STALLED, str(source), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        child.send_signal(number)
        _, errors = child.communicate(timeout=30)
    assert child.returncode == 128 + number
    assert "Traceback" not in errors
    assert _names(source.parent) == ["f16.gguf"]


def test_a_killed_run_leaves_no_final_file_and_the_next_one_succeeds(source: Path) -> None:
    target = source.with_name("q8.gguf")
    command = [sys.executable, "-c", _STALLED, str(source), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "writing\n"
        child.kill()
    assert _names(source.parent) == ["f16.gguf", "q8.gguf.part"]
    quantize(QuantizeJob(source, target, "Q8_0", threads=1))
    assert _names(source.parent) == ["f16.gguf", "q8.gguf", "q8.gguf.json"]


def test_the_quantizer_dies_with_its_parent(source: Path, tmp_path: Path) -> None:
    """It is started with an order it waits for on a FIFO, so that it is surely still at work."""
    fifo = tmp_path / "never.gguf"
    os.mkfifo(fifo)
    order = (
        f'{{"source": "{fifo}", "target": "{tmp_path / "t"}", "ftype": 7, "threads": 1, '
        '"allow_requantize": false, "dry_run": false}'
    )
    command = [sys.executable, "-m", "rllm.backends.llama.quantize", order]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(timeout=60) == 1


def _model(source: Path, type_name: str = "Q8_0") -> Model:
    return Model(
        file="base.gguf",
        source=PathSource(path=str(source)),
        variants=(
            Variant(file="a.gguf", type=type_name, source="base.gguf"),
            Variant(file="b.gguf", type="Q4_0", source="base.gguf"),
        ),
    )


def _pull(directory: Path, model: Model, *, force: bool = False) -> list[str]:
    said: list[str] = []
    Pull(directory, said.append, force=force, threads=1).model(model, with_variants=True)
    return said


def test_variants_are_made_once(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    _pull(folder, _model(source))
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    said = _pull(folder, _model(source))
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert [line.rpartition(": ")[2] for line in said] == ["there", "there (Q8_0)", "there (Q4_0)"]


def test_a_variant_whose_recipe_changed_is_made_again(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    _pull(folder, _model(source))
    _pull(folder, _model(source, "Q5_0"))
    record = provenance.load(folder / "a.gguf")
    assert record is not None
    assert record.type == "Q5_0"


def test_a_file_of_the_users_own_is_left_alone(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "a.gguf").write_bytes(b"mine")
    said = _pull(folder, _model(source))
    assert (folder / "a.gguf").read_bytes() == b"mine"
    assert any("a.gguf" in line and "left as it is" in line for line in said)
    _pull(folder, _model(source), force=True)
    assert (folder / "a.gguf").read_bytes() != b"mine"


def test_a_touched_file_is_recognised_by_its_content(source: Path) -> None:
    quantize(_job(source, "Q8_0"))
    target = source.with_name("Q8_0.gguf")
    os.utime(target, ns=(time.time_ns(), 1))
    assert provenance.state_of(target) is provenance.State.CURRENT
    target.write_bytes(target.read_bytes()[:-1] + b"x")
    assert provenance.state_of(target) is provenance.State.CHANGED


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_others_fill_is_the_reason_that_is_named(
    source: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp fails without a word then, after its usual warnings."""
    monkeypatch.setattr(files, "require_space", lambda directory, num_bytes: None)  # it was free before
    with pytest.raises(HubError, match=r"small: the disk is full: .* more are needed and .* are free"):
        quantize(QuantizeJob(source, small_disk / "q4.gguf", "Q4_K_M", threads=1))
    assert _names(small_disk) == []


def test_a_warning_is_not_a_reason(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("llama_model_load: error loading\n")
    with log.open() as said:
        assert _reason(1, said) == "llama_model_load: error loading"
    log.write_text("something\nwarning: falling back to q5_0\n")
    with log.open() as said:
        assert _reason(1, said) == "llama.cpp gives no reason"
