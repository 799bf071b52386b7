from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner

from rllm.modelhub.cli import cli
from rllm.observe.logs import make_logger
from rllm.printable import printable, printable_json, printable_text
from rllm.top.scrape import parse

TITLE = "\x1b]0;owned\x07"
EVIL = f"a{TITLE}\x9b31m\r\u202eb\ud800"
SHOWN = r"a\x1b]0;owned\x07\x9b31m\r\u202eb\ud800"


def test_what_acts_on_a_terminal_is_shown() -> None:
    assert printable(EVIL) == SHOWN
    assert printable("a\tb\nc") == r"a\tb\nc"
    assert printable_text("a\tb\nc\r\x1b") == "a\tb\nc\\r\\x1b"


def test_what_only_looks_unusual_stays() -> None:
    text = "naïve 日本 👩‍🔬 Ġ\u00a0 עברית"
    assert printable(text) == printable_text(text) == text


def test_json_stays_the_same_json() -> None:
    value = {"name": f"x{TITLE}\x9b\x7f\u202e\u2028"}
    text = printable_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize("format", ["console", "json"])
def test_a_log_line_cannot_be_forged(format: str) -> None:
    stream = io.StringIO()
    make_logger(format, "info", stream).error("odd\x1b[2J", text=f"{TITLE}\n2026-01-01 [error] forged")  # type: ignore[arg-type]
    lines = stream.getvalue().splitlines()
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("2026-01-01") for line in lines)


def _named(path: Path, name: bytes) -> Path:
    def text(data: bytes) -> bytes:
        return struct.pack("<Q", len(data)) + data

    path.write_bytes(
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text(b"general.name") + struct.pack("<I", 8) + text(name)
    )
    return path


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_name_of_a_model_reaches_no_terminal_as_it_is(tmp_path: Path, options: list[str]) -> None:
    path = _named(tmp_path / "odd\x1b[31m.gguf", TITLE.encode() + "\x9b".encode())
    found = CliRunner().invoke(cli, ["inspect", *options, str(path)])
    assert found.exit_code == 0
    assert "owned" in found.output
    assert all(line.isprintable() for line in found.output.splitlines())


def test_neither_do_names_of_files(tmp_path: Path) -> None:
    _named(tmp_path / "odd\x1b[31m.gguf", b"x")
    (tmp_path / "models.toml").write_text("[models]")
    found = CliRunner().invoke(cli, ["--models-dir", str(tmp_path), "list"])
    assert r"odd\x1b[31m.gguf" in found.output


def test_nor_what_a_watched_server_says() -> None:
    reading = parse('rllm_model_info{model="m\x1b]0;x\x07"} 1\n', 0.0)
    assert reading.labels("rllm_model_info", "model") == [r"m\x1b]0;x\x07"]
