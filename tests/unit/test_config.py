"""Settings come from four places, are checked together, and name what is wrong as the operator wrote it."""

from __future__ import annotations

import json
import os
import re
import tomllib
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from rllm.backends.options import LlamaOptions
from rllm.errors import StartError
from rllm.settings import pages
from rllm.settings.degrade import parse_rung
from rllm.settings.load import load
from rllm.settings.model import PerModel
from rllm.settings.printing import printable
from rllm.settings.settings import SETTINGS, SUBJECTS
from rllm.settings.sources import ConfigError, unknown_variables
from rllm.workers.frames import SchedulerOptions

ONE = {"gguf": ("a.gguf",)}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("RLLM_"):
            monkeypatch.delenv(name)


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "rllm.toml"
    path.write_text('slots = 3\nport = 3000\nthreads = 3\n[[models]]\ngguf = "file.gguf"\n')
    return path


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLLM_SLOTS", "2")
    monkeypatch.setenv("RLLM_PORT", "2000")
    settings = load({"slots": 1}, toml)
    assert (settings.engine.slots, settings.server.port, settings.engine.threads) == (1, 2000, 3)
    assert settings.tuning.max_step_tokens == 0  # nobody said anything


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLLM_SLOTS", "")
    monkeypatch.setenv("RLLM_API_KEY", "")
    settings = load(ONE)
    assert settings.engine.slots == 0
    assert settings.served()[0].llama_options(4096).slots == 8
    assert settings.access.api_key == ()


@pytest.mark.parametrize("value", ["", " ", "one,", ",", "one, ,two", ("one", " ")])
def test_a_key_of_nothing_is_refused_wherever_it_comes_from(
    value: str | tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = value if isinstance(value, tuple) else (value,)
    with pytest.raises(ConfigError, match=r"^--api-key: a key is empty; was a variable unset\?"):
        load({**ONE, "api_key": (*given, "")})
    file = tmp_path / "c.toml"
    file.write_text(f"api_key = {json.dumps(value)}\n")
    with pytest.raises(ConfigError, match="api_key: a key is empty"):
        load(ONE, file)
    if isinstance(value, str) and value:  # an empty variable has a test of its own
        monkeypatch.setenv("RLLM_API_KEY", value)
        with pytest.raises(ConfigError, match=r"^RLLM_API_KEY: a key is empty"):
            load(ONE)


def test_spaces_around_a_key_are_not_part_of_it() -> None:
    """A secret from a file ends with a newline, and no header can carry one."""
    assert load({**ONE, "api_key": (" one\n",)}).access.api_key[0].get_secret_value() == "one"
    with pytest.raises(ConfigError, match="no header can carry") as caught:
        load({**ONE, "api_key": ("hun\nter2",)})
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize("variable", ["RLLM_API_KEY", "RLLM_KEYS_FILE"])
def test_an_empty_variable_never_opens_a_server_to_other_machines(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "")
    for more in ({}, {"allow_insecure": True}):
        with pytest.raises(ConfigError, match=f"{variable} is empty|set an API key"):
            load({**ONE, "host": "0.0.0.0", **more})
    given = {"api_key": ("k",)} if variable == "RLLM_API_KEY" else {"keys_file": Path("keys.toml")}
    assert load({**ONE, "host": "0.0.0.0", **given}).server.host == ("0.0.0.0",)  # the flag wins
    assert load(ONE).access.api_key == ()


def test_lists_in_the_environment_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLLM_GGUF", "a.gguf, b.gguf")
    monkeypatch.setenv("RLLM_API_KEY", "one,two")
    settings = load({})
    assert [str(path) for path in settings.models.gguf] == ["a.gguf", "b.gguf"]
    assert [key.get_secret_value() for key in settings.access.api_key] == ["one", "two"]


@pytest.mark.parametrize(
    ("hosts", "is_loopback"),
    [
        (("::1",), True),
        (("[::1]",), True),
        (("127.0.0.1", "::1"), True),
        (("127.0.0.1", "::"), False),
        (("localhost",), True),
        (("example.org",), False),
    ],
)
def test_all_of_several_hosts_must_be_of_this_machine(hosts: tuple[str, ...], is_loopback: bool) -> None:
    settings = load({**ONE, "host": hosts, "allow_insecure": True})
    assert settings.is_loopback is is_loopback
    assert "[" not in "".join(settings.listening_hosts)
    if not is_loopback:
        with pytest.raises(ConfigError, match="set an API key"):
            load({**ONE, "host": hosts})


def test_a_unix_socket_is_listened_to_instead_of_an_address_unless_one_is_named() -> None:
    assert load(ONE).listening_hosts == ("127.0.0.1",)
    assert load({**ONE, "uds": Path("s")}).listening_hosts == ()
    assert load({**ONE, "uds": Path("s"), "host": ("::1",)}).listening_hosts == ("::1",)
    with pytest.raises(ConfigError, match=r"host 0\.0\.0\.0 is open"):
        load({**ONE, "uds": Path("s"), "host": ("0.0.0.0",)})


def test_a_model_may_have_several_names(tmp_path: Path) -> None:
    (one,) = load({**ONE, "alias": ("small", "gpt-4o", "default")}).served()
    assert (one.id, one.aliases) == ("small", ("gpt-4o", "default"))
    first, second = load({"gguf": ("a", "b"), "alias": ("small,gpt-4o", "exact")}).served()
    assert [(m.id, m.aliases) for m in (first, second)] == [("small", ("gpt-4o",)), ("exact", ())]
    path = tmp_path / "c.toml"
    path.write_text('[[models]]\ngguf = "a.gguf"\nalias = ["small", "gpt-4o"]\n')
    assert load({}, path).served()[0].aliases == ("gpt-4o",)
    with pytest.raises(ConfigError, match="two models are called 'x'"):
        load({"gguf": ("a", "b"), "alias": ("m,x", "x")})


def test_models_are_named_by_alias_or_file_in_order() -> None:
    settings = load({"gguf": ("x/q4.gguf", "x/f16.gguf"), "alias": ("small", "exact")})
    assert [model.id for model in settings.served()] == ["small", "exact"]
    assert [model.id for model in load({"gguf": ("x/q4.gguf",)}).served()] == ["q4"]


def test_a_table_of_models_overrides_the_top_level_for_its_model_only(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        'slots = 4\nkv = "split"\n'
        '[[models]]\ngguf = "a.gguf"\n'
        '[[models]]\ngguf = "b.gguf"\nalias = "big"\nslots = 2\n'
    )
    small, big = load({"ctx_size": 512}, path).served()
    assert (small.id, small.engine.slots, small.cache.kv, small.engine.ctx_size) == ("a", 4, "split", 512)
    assert (big.id, big.engine.slots, big.cache.kv, big.engine.ctx_size) == ("big", 2, "split", 512)


def test_model_paths_in_a_file_count_from_its_folder(toml: Path) -> None:
    assert load({}, toml).served()[0].gguf == toml.parent / "file.gguf"


def test_naming_a_model_replaces_those_of_the_file(toml: Path) -> None:
    assert [model.id for model in load(ONE, toml).served()] == ["a"]


def test_zero_context_means_what_the_model_was_trained_on_up_to_a_limit() -> None:
    model = load(ONE).served()[0]
    assert model.llama_options(2048).ctx_per_slot == 2048
    assert model.llama_options(131072).ctx_per_slot == 4096
    assert load({**ONE, "ctx_size": 9000}).served()[0].llama_options(2048).ctx_per_slot == 9000


def test_engine_settings_reach_the_worker() -> None:
    model = load({**ONE, "slots": 2, "kv": "split", "batch_size": 256, "prefix_cache": False}).served()[0]
    options = model.llama_options(2048)
    assert (options.slots, options.kv, options.batch_size, options.ubatch_size) == (2, "split", 256, 0)
    assert model.scheduler_options() == SchedulerOptions(prefix_cache=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "no model to serve"),
        ({"gguf": ("a",), "slots": -1}, "--slots: .*greater than or equal to 0.*got -1"),
        ({"gguf": ("a",), "slots": 257}, "--slots"),
        ({"gguf": ("a",), "port": 70000}, "--port"),
        ({"gguf": ("a",), "kv": "both"}, "--kv: .*'auto', 'split' or 'unified'"),
        (
            {"gguf": ("a",), "slots": 100, "batch_size": 30},
            r"slots \(100\) must not exceed batch_size \(30\)",
        ),
        (
            {"gguf": ("a",), "batch_size": 512, "ubatch_size": 1024},
            r"ubatch_size \(1024\) must not exceed batch_size \(512\)",
        ),
        (
            {"gguf": ("a",), "slots": 8, "max_step_tokens": 4},
            r"slots \(8\) must not exceed max_step_tokens \(4\)",
        ),
        ({"gguf": ("a",), "prefix_store_mb": 0, "prefix_store_dir": "x"}, "needs memory to go through"),
        (
            {"gguf": ("a",), "prefix_store_mb": 9000, "prefix_store_dir": "x"},
            r"prefix_store_disk_mb \(4096\) must not be less than prefix_store_mb \(9000\)",
        ),
        ({"gguf": ("a",), "prefix_store_mb": 9, "prefix_cache": False}, "nothing is reused"),
        ({"gguf": ("a",), "cache_type_v": "q8_0", "flash_attn": "off"}, "needs flash attention"),
        ({"gguf": ("a", "b"), "alias": ("x",)}, "2 gguf but 1 alias"),
        ({"gguf": ("a.gguf", "b/a.gguf")}, "two models are called 'a'"),
        ({"gguf": ("a",), "host": "0.0.0.0"}, "set an API key"),
        ({"gguf": ("a",), "host": "::"}, "set an API key"),
    ],
)
def test_what_cannot_work_is_refused_by_name(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("more", [{"api_key": ("k",)}, {"allow_insecure": True}])
def test_listening_to_other_machines_needs_a_key_or_consent(more: dict[str, object]) -> None:
    assert load({**ONE, "host": "0.0.0.0", **more}).server.host == ("0.0.0.0",)


def test_an_unknown_key_of_the_file_is_named_with_the_nearest_known_one(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("slot = 3\ngguf = 'a.gguf'\n")
    with pytest.raises(ConfigError, match=r"c\.toml: slot: unknown key, did you mean 'slots'"):
        load({}, path)


def test_an_unknown_key_of_a_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[[models]]\ngguf = 'a.gguf'\nport = 1\n")
    with pytest.raises(ConfigError, match=r"models\.port: unknown key"):
        load({}, path)


def test_a_broken_or_missing_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    with pytest.raises(ConfigError, match="No such file"):
        load({}, path)
    path.write_text("slots = = 3")
    with pytest.raises(ConfigError, match=r"c\.toml: .*line 1"):
        load({}, path)


def test_errors_name_the_variable_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLLM_SLOTS", "many")
    with pytest.raises(ConfigError, match=r"^RLLM_SLOTS: .*got 'many'"):
        load(ONE)


def test_misspelt_variables_are_found() -> None:
    assert unknown_variables({"RLLM_SLOT": "1", "RLLM_SLOTS": "1", "RLLM_CONFIG": "x", "PATH": ""}) == [
        "RLLM_SLOT"
    ]


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        load(ONE).engine.slots = 3  # type: ignore[misc]


def test_the_printed_form_is_toml_that_says_where_values_come_from_and_hides_keys(
    toml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLLM_API_KEY", "hunter2")
    text = printable(load({"kv": "split"}, toml))
    assert "hunter2" not in text
    assert tomllib.loads(text)["api_key"] == ["**********"]
    assert tomllib.loads(text)["models"][0]["gguf"].endswith("file.gguf")
    lines = {line.split(" =")[0]: line for line in text.splitlines()}
    assert lines["kv"].endswith("# command line")
    assert lines["api_key"].endswith("# RLLM_API_KEY")
    assert lines["slots"].endswith("# " + str(toml))
    assert lines["batch_size"].endswith("# default")


def test_what_is_unset_is_a_comment_in_the_printed_form() -> None:
    assert "# keys_file is not set" in printable(load(ONE)).splitlines()


def test_the_printed_form_can_be_read_again(toml: Path, tmp_path: Path) -> None:
    settings = load({"slots": 5}, toml)
    again = tmp_path / "again.toml"
    again.write_text(printable(settings))
    assert load({}, again).served() == settings.served()


def test_every_option_has_a_group_and_a_help_text() -> None:
    for name, setting in SETTINGS.items():
        assert setting.option.text.endswith("."), name
        assert setting.option.unit or setting.choices or setting.kind is bool, name


def test_metrics_that_are_off_cannot_be_opened() -> None:
    with pytest.raises(ConfigError, match="metrics is off"):
        load({**ONE, "metrics": False, "open_metrics": True})


DOCS = Path(__file__).parents[2] / "docs"


def test_settings_without_a_model_can_be_shown() -> None:
    assert load({"slots": 3}, need_model=False).engine.slots == 3


def test_the_example_file_is_up_to_date_and_changes_nothing(tmp_path: Path) -> None:
    text = (DOCS / "rllm.toml").read_text()
    assert text == pages.example_file(), "python -m rllm.settings.pages"
    single, _, several = text.partition("# --- Several models")
    path = tmp_path / "all.toml"
    path.write_text(re.sub(r"^#(\w+ = .)", r"\1", single, flags=re.M))
    content = tomllib.loads(path.read_text())
    assert sum(len(value) if isinstance(value, dict) else 1 for value in content.values()) > 60
    assert load(ONE, path) == load(ONE)
    path.write_text(re.sub(r"^#(\w+ = .|\[\[)", r"\1", several.partition("\n")[2], flags=re.M))
    assert [model.id for model in load({}, path).served()] == ["small", "exact"]


@pytest.mark.parametrize("option", ["degrade", "allowed_hosts", "cors_origin"])
def test_an_option_may_list_several_with_commas(option: str) -> None:
    values = ("1.5:cap=128", "2:shed=0", "3:route", "4:refuse")
    expected = tuple(map(parse_rung, values)) if option == "degrade" else values
    assert load({**ONE, option: (", ".join(values),)}).values()[option] == expected
    assert load({**ONE, option: values}).values()[option] == expected


def test_a_comma_in_a_path_is_part_of_it() -> None:
    assert load({"gguf": ("a,b.gguf",)}).models.gguf == (Path("a,b.gguf"),)


def test_a_file_may_use_tables_or_the_names_of_the_options(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(
        "first_token_timeout_s = 1\nslots = 3\ndegrade = ['2:route']\n"
        "[timeouts]\nqueue_s = 2\n[tuning]\nbatch_size = 64\n[prefix_store]\nmb = 7\n[engine]\nthreads = 2\n"
        "[[models]]\ngguf = 'a.gguf'\nbatch_size = 32\n[models.prefix_store]\nmb = 9\n"
    )
    settings = load({}, path)
    assert (settings.timeouts.first_token_s, settings.timeouts.queue_s) == (1, 2)
    assert list(map(str, settings.degrade.rungs)) == ["2:route"]
    (model,) = settings.served()
    options = model.llama_options(512)
    assert (options.slots, options.threads, options.batch_size, options.prefix_store_mb) == (3, 2, 32, 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[timeouts]\nqueu_s = 1", r"timeouts\.queu_s: unknown key, did you mean 'queue_s'"),
        ("[timeout]\nqueue_s = 1", r"timeout: unknown key, did you mean 'timeouts'"),
        (
            "queue_timeout_s = 1\n[timeouts]\nqueue_s = 1",
            r"timeouts\.queue_s: the same setting as queue_timeout_s",
        ),
        ("[timeouts]\nqueue_s = -1", r"c\.toml: timeouts\.queue_s: .*greater than or equal to 0 \(got -1\)"),
        ("[[models]]\ngguf = 'a'\n[models.timeouts]\nqueue_s = 1", r"models\.timeouts\.queue_s: unknown key"),
        ("models = 3", "models: must be tables"),
        ("[[models]]\nslots = 3", "needs one gguf"),
        ("[[models]]\ngguf = 'a'\nslots = 'x'", r"models\.slots: .*got 'x'"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError, match=message):
        load({}, path, need_model=False)


def test_the_names_of_options_belong_to_one_setting_each() -> None:
    flags = [flag for setting in SETTINGS.values() for flag in (setting.flag, *setting.option.flags)]
    assert len(flags) == len(set(flags))
    assert len(SETTINGS) == sum(len(part.settings) for part in SUBJECTS)


def test_a_worker_without_options_is_one_whose_operator_chose_nothing() -> None:
    """What a worker is started with has defaults of its own, for tests and tools."""
    of_worker = LlamaOptions(prefix_store_disk_mb=PerModel().prefix_store.disk_mb)
    assert PerModel().llama_options(0) == of_worker
    assert PerModel().scheduler_options() == SchedulerOptions()


def test_the_table_in_the_docs_is_up_to_date() -> None:
    page = (DOCS / "configuration.md").read_text()
    assert page == pages.with_table(page), "python -m rllm.settings.pages"


def test_exact_is_what_its_kernels_need() -> None:
    options = load({**ONE, "exact": True, "threads": 1}).served()[0].llama_options(8192)
    assert (options.kv, options.flash_attn, options.ubatch_size) == ("split", "on", 48)
    assert load({**ONE, "exact": True, "ctx_size": 511}).engine.exact
    for wrong in ({"threads": 2}, {"kv": "unified"}, {"ubatch_size": 512}, {"speculative_tokens": 4}):
        with pytest.raises(StartError, match="exact needs"):
            load({**ONE, "exact": True, "threads": 1, **wrong})
