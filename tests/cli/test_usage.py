"""What the command line refuses, and how it says so: one line and an exit code."""

from __future__ import annotations

import os
import re
import socket
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rllm.cli import main
from rllm.settings.settings import SETTINGS


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("RLLM_"):
            monkeypatch.delenv(name)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result, code: int) -> str:
    """The last line of what was printed; the rest is usage."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--slotz", 3), "No such option '--slotz'"),
        (("--slots", "many"), "'many' is not a valid integer"),
        (("--kv", "both"), "'both' is not one of"),
        (("--slots", 257), "--slots: Input should be less than or equal to 256 (got 257)"),
        (("a.gguf", "top"), "top has options of its own"),
        (("--config", "nowhere.toml"), "--config nowhere.toml: No such file"),
        ((), "no model to serve"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[object, ...], message: str) -> None:
    assert message in refused(call(*arguments), 2)


def test_without_a_key_only_this_machine_is_served(tiny_model: Path) -> None:
    line = refused(call("--gguf", tiny_model, "--host", "0.0.0.0"), 2)
    assert "set an API key (RLLM_API_KEY) or allow_insecure" in line


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    result = call("--port", 0, "--gguf", tmp_path / "none.gguf")
    assert "none.gguf: No such file" in refused(result, 1)
    assert len(result.output.strip().splitlines()) == 1


def test_a_file_that_is_no_gguf_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"\x80\x02pickle" * 100)
    assert "weights.gguf: not a GGUF file" in refused(call("--port", 0, "--gguf", path), 1)


def test_a_truncated_file_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_model.read_bytes()[:-5000])
    assert "cut.gguf: truncated" in refused(call("--port", 0, "--gguf", path), 1)


def test_a_start_that_cannot_fit_says_so_with_numbers(tiny_model: Path) -> None:
    result = call("--port", 0, "--gguf", tiny_model, "--slots", 256, "--ctx-size", 10**8)
    line = refused(result, 1)
    assert "would not fit in memory" in line
    assert "KV cache" in line


def test_a_busy_port_is_found_before_the_model_is_read(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refused(call("--port", port, "--gguf", tmp_path / "none.gguf"), 1)
    assert line == f"rllm-serve: port {port} on 127.0.0.1 is in use; choose another with --port"


def test_an_address_that_is_not_ours_is_one_line(tiny_model: Path) -> None:
    assert "cannot listen on 192.0.2.1:0" in refused(
        call("--host", "192.0.2.1", "--port", 0, "--allow-insecure", "--gguf", tiny_model), 1
    )


def test_the_settings_are_printed_with_keys_masked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RLLM_SLOTS", "2")
    monkeypatch.setenv("RLLM_API_KEY", "from-env")
    file = tmp_path / "c.toml"
    file.write_text('slots = 3\nthreads = 3\napi_key = "from-file"\n')
    result = call("--gguf", "a.gguf", "--api-key", "hunter2", "--print-config", "--config", file)
    assert result.exit_code == 0
    for secret in ("hunter2", "from-env", "from-file"):
        assert secret not in result.output
    assert 'api_key = ["**********"]' in result.output
    assert "slots = 2 " in result.output
    assert "threads = 3 " in result.output


def test_a_misspelt_variable_is_pointed_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RLLM_SLOT", "2")
    result = call("--port", 0, "--gguf", tmp_path / "none.gguf")
    assert "RLLM_SLOT is no setting and has no effect, did you mean 'RLLM_SLOTS'?" in result.output


def test_an_empty_key_variable_is_pointed_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RLLM_API_KEY", "")
    result = call("--port", 0, "--gguf", tmp_path / "none.gguf")
    assert "RLLM_API_KEY is empty and counts as unset" in result.output


def test_an_empty_key_is_no_key(tiny_model: Path) -> None:
    line = refused(call("--gguf", tiny_model, "--host", "0.0.0.0", "--api-key", ""), 2)
    assert "--api-key: a key is empty; was a variable unset?" in line


def test_help_is_grouped_and_says_the_defaults() -> None:
    text = call("--help").output
    positions = [text.index(f"\n{group}:\n") for group in ("Model", "Engine", "Server", "Limits", "Logging")]
    assert positions == sorted(positions)
    assert "[8000]" in text


def test_help_shows_what_most_people_need_and_help_all_every_option() -> None:
    common, every = (
        set(re.findall(r"^  (-.*?)(?:  |$)", call(option).output, re.M))
        for option in ("--help", "--help-all")
    )
    assert common < every
    assert len(common) <= 30
    for setting in SETTINGS.values():
        assert any(setting.flag in names.replace(",", "").split() for names in every), setting.name
        assert (
            any(setting.flag in names.replace(",", "").split() for names in common) == setting.option.common
        )


@pytest.mark.parametrize(
    "arguments",
    [
        ("a.gguf", "b.gguf", "--alias", "small", "--alias", "exact", "--slots", 3, "--ctx-size", 512),
        ("-m", "a.gguf", "--gguf", "b.gguf", "-a", "small", "-a", "exact", "-np", 3, "-c", 512),
        ("a.gguf", "-np=3", "-c512", "--model", "b.gguf", "-a", "small", "-a", "exact"),
    ],
)
def test_models_need_no_option_and_short_options_are_those_of_llama_server(
    arguments: tuple[object, ...],
) -> None:
    printed = tomllib.loads(
        call(*arguments, "-ngl", 0, "-t", 1, "-tb", 2, "-fa", "on", "--print-config").output
    )
    assert (printed["gguf"], printed["alias"]) == (["a.gguf", "b.gguf"], ["small", "exact"])
    assert (printed["slots"], printed["ctx_size"], printed["gpu_layers"]) == (3, 512, 0)
    assert (printed["threads"], printed["threads_batch"], printed["flash_attn"]) == (1, 2, "on")


def test_the_version_is_told() -> None:
    assert call("--version").output.startswith("rllm-serve, version ")


@pytest.mark.parametrize("option", ["--gguf", "--keys-file", "--uds", "--ssl-certfile"])
def test_a_name_that_is_not_utf8_is_one_line(tmp_path: Path, tiny_model: Path, option: str) -> None:
    path = os.fsdecode(bytes(tmp_path) + b"/t\xffny")
    Path(path).write_bytes(b"")
    more = () if option == "--gguf" else ("--gguf", tiny_model)
    result = CliRunner().invoke(main, ["--port", "0", *map(str, more), option, path])
    assert "t\\udcffny: the name is not UTF-8; rename the file, or make a link to it" in refused(result, 2)
