"""A start that cannot work is refused before anything is loaded, with the numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from rllm.errors import StartError
from rllm.settings.load import load
from rllm.startup.preflight import Checked, available_bytes, check, check_memory, prefix_store_mb


def checked(path: Path, **settings: object) -> Checked:
    return check(load({"gguf": (path,), **settings}).served()[0])


def test_the_need_grows_with_slots_and_context(tiny_model: Path) -> None:
    small = checked(tiny_model, slots=2, ctx_size=512)
    large = checked(tiny_model, slots=4, ctx_size=1024)
    assert small.weight_bytes == tiny_model.stat().st_size
    assert large.kv_bytes == 4 * small.kv_bytes > 0


def test_quantized_caches_need_less(tiny_model: Path) -> None:
    half = checked(tiny_model, cache_type_k="q8_0", cache_type_v="q8_0")
    assert half.kv_bytes < 0.6 * checked(tiny_model).kv_bytes


def test_what_does_not_fit_is_refused_with_numbers(tiny_model: Path) -> None:
    model = checked(tiny_model)
    with pytest.raises(
        StartError, match=r"would not fit in memory: .* GiB needed .*KV cache.* available"
    ) as caught:
        check_memory([model], 10 * 2**20, "memory")
    assert "\n" not in str(caught.value)
    check_memory([model], 2**40, "memory")


def test_weights_of_one_file_count_once(tiny_model: Path) -> None:
    model = checked(tiny_model)
    with pytest.raises(StartError) as once:
        check_memory([model], 0, "memory")
    with pytest.raises(StartError) as twice:
        check_memory([model, model], 0, "memory")
    weights = r"weights 0.00 GiB"
    assert weights in str(once.value)
    assert weights in str(twice.value)


@pytest.mark.parametrize(
    ("settings", "free_gib", "on_gpu", "expected"),
    [
        ({}, 8, False, 512),
        ({}, 1, False, 256),
        ({}, -1, False, 0),
        ({}, 8, True, 0),
        ({"prefix_store_dir": "store"}, 8, True, 512),
        ({"prefix_store_mb": 3000}, 1, True, 3000),
        ({"prefix_store_mb": 0}, 8, False, 0),
        ({"prefix_cache": False}, 8, False, 0),
    ],
)
def test_a_prefix_store_whose_size_is_open_takes_what_is_free(
    settings: dict[str, object], free_gib: int, on_gpu: bool, expected: int
) -> None:
    model = load({"gguf": ("a.gguf",), **settings}).served()[0]
    assert prefix_store_mb(model, free_gib * 2**30, on_gpu=on_gpu) == expected


def test_a_prefix_store_of_a_given_size_must_fit(tiny_model: Path) -> None:
    check_memory([checked(tiny_model)], 2**30, "memory")
    with pytest.raises(StartError, match=r"other 1\.\d+ GiB"):
        check_memory([checked(tiny_model, prefix_store_mb=1024)], 2**30, "memory")


def test_this_machine_has_some_memory() -> None:
    assert available_bytes() > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"PK\x03\x04 something else", "not a GGUF"),
        (b"GGUF\x03\x00\x00\x00", "truncated"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "bad.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartError, match=rf"bad\.gguf: .*{message}"):
        checked(path)


def test_a_file_without_its_tail_is_found(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_model.read_bytes()[:-1000])
    with pytest.raises(StartError, match=r"truncated: .* bytes are there"):
        checked(path)
