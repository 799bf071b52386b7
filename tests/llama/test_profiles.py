"""What is known about a model on a machine: kept whole, and applied where nothing was chosen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from rllm.backends.llama.fingerprint import build_id, fingerprint
from rllm.backends.options import Fallback, LlamaOptions
from rllm.cli import main as serve
from rllm.startup.profiles import (
    Applied,
    Profile,
    ProfileKeeper,
    ProfileStore,
    Tuned,
    apply,
    default_folder,
    describe_machine,
)
from tests.tinymodel import write_tiny_model

FALLBACK = Fallback(options={"repack": "off"}, reason="was killed by signal 4 (SIGILL)")


def store(folder: Path, **machine: object) -> ProfileStore:
    return ProfileStore(folder, machine or {"cpu": "one"}, fingerprint)


def test_what_is_kept_is_found_again(tmp_path: Path, tiny_model: Path) -> None:
    path = store(tmp_path / "new").update(tiny_model, fallback=FALLBACK)
    found = store(tmp_path / "new").load(tiny_model)
    assert found is not None
    assert (found.fallback, found.model, found.machine) == (FALLBACK, str(tiny_model), {"cpu": "one"})
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_another_machine_another_model_and_another_build_know_nothing_of_it(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "a.gguf")
    other = write_tiny_model(tmp_path / "b.gguf", seed=2)
    store(tmp_path).update(model, fallback=FALLBACK)
    assert store(tmp_path, cpu="other").load(model) is None
    assert store(tmp_path, cpu="one", llama_cpp="other").load(model) is None
    assert store(tmp_path).load(other) is None


def test_a_file_that_cannot_be_read_counts_as_none(tmp_path: Path, tiny_model: Path) -> None:
    profiles = store(tmp_path)
    profiles.path(tiny_model).write_text('{"fallback": 3')
    assert profiles.load(tiny_model) is None
    profiles.update(tiny_model, fallback=FALLBACK)
    assert profiles.load(tiny_model) is not None


def test_it_applies_only_where_nothing_was_chosen() -> None:
    profile = Profile(
        model="m", machine={}, fallback=Fallback(options={"repack": "off", "flash_attn": "off"}, reason="r")
    )
    applied = apply(profile, LlamaOptions(flash_attn="on"))
    assert (applied.options.repack, applied.options.flash_attn) == ("off", "on")
    assert applied.fallback == Fallback(options={"repack": "off"}, reason="r")
    chosen = LlamaOptions(flash_attn="on", repack="on")
    assert apply(profile, chosen) == Applied(chosen)
    assert apply(None, LlamaOptions()) == Applied(LlamaOptions())


def test_a_fallback_comes_before_what_was_measured_and_both_after_what_was_chosen() -> None:
    fast = Tuned(
        options={"repack": "on", "flash_attn": "off", "threads": 3}, use="chat", how="full", rounds=7
    )
    safe = Fallback(options={"repack": "off"}, reason="r")
    applied = apply(Profile(model="m", machine={}, fallback=safe, tuned=fast), LlamaOptions(threads=2))
    assert (applied.options.repack, applied.options.flash_attn, applied.options.threads) == ("off", "off", 2)
    assert (applied.fallback, applied.tuned) == (safe, {"flash_attn": "off"})


def test_a_file_of_another_version_may_know_options_that_are_not_there() -> None:
    later = Tuned(options={"warp": 9, "threads": 3}, use="chat", how="full", rounds=7)
    assert apply(Profile(model="m", machine={}, tuned=later), LlamaOptions()).tuned == {"threads": 3}


def test_what_was_found_before_stays_beside_what_is_found_now(tmp_path: Path, tiny_model: Path) -> None:
    fast = Tuned(options={"threads": 3}, use="chat", how="quick", rounds=3)
    store(tmp_path).update(tiny_model, fallback=FALLBACK)
    store(tmp_path).update(tiny_model, tuned=fast)
    found = store(tmp_path).load(tiny_model)
    assert found is not None
    assert (found.fallback, found.tuned) == (FALLBACK, fast)


def test_what_instances_find_out_is_written_once(tmp_path: Path, tiny_model: Path) -> None:
    said: list[str] = []
    keeper = ProfileKeeper(store(tmp_path), {"m": tiny_model}, lambda event, _fields: said.append(event))
    for instance in ("m-0", "m-1"):
        keeper.on_fallback("m", instance, FALLBACK)
    assert said == ["profile kept"]


def test_what_only_took_too_long_is_tried_again_at_the_next_start(tmp_path: Path, tiny_model: Path) -> None:
    keeper = ProfileKeeper(store(tmp_path), {"m": tiny_model}, lambda _event, _fields: None)
    keeper.on_fallback("m", "m-0", Fallback(options={"repack": "off"}, reason="no end", certain=False))
    assert store(tmp_path).load(tiny_model) is None


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    keeper = ProfileKeeper(
        store(tmp_path / "file"), {"m": tiny_model}, lambda event, _fields: said.append(event)
    )
    keeper.on_fallback("m", "m-0", FALLBACK)
    assert said == ["profile not kept"]


def test_the_machine_and_the_build_have_names() -> None:
    machine = describe_machine(build_id(), ["a card, driver 1"])
    assert machine["gpus"] == ["a card, driver 1"]
    assert machine == describe_machine(build_id(), ["a card, driver 1"])


def test_the_folder_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/rllm/profiles")


def test_print_config_shows_what_is_known_and_where_from(tmp_path: Path, tiny_model: Path) -> None:
    machine = describe_machine(build_id(), [])
    fast = Tuned(options={"threads": 3, "ubatch_size": 128}, use="chat", how="full", rounds=7)
    ProfileStore(tmp_path, machine, fingerprint).update(tiny_model, fallback=FALLBACK, tuned=fast)
    arguments = ["--gguf", str(tiny_model), "--profile-dir", str(tmp_path), "--print-config"]
    text = CliRunner().invoke(serve, [*arguments, "--ubatch-size", "64"]).output
    lines = {line.split(" = ")[0]: line for line in text.splitlines() if " = " in line}
    assert re.match(r"threads = 3 +# tuned, /", lines["threads"])
    assert re.match(r'repack = "off" +# fall-back, /', lines["repack"])
    assert re.match(r"ubatch_size = 64 +# command line", lines["ubatch_size"])
