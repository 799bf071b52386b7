"""What was stored and came back is what was there: the same text as if it had never left the cache.

On F16 that is also the text after computing the whole prompt. On Q8_0 it need not be: llama.cpp rounds
differently in its kernels for one row and for many, and with the place of the cells in a unified cache,
so whoever reuses all but one token, in the cache or not, may get another text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from rllm.backends.llama import lib
from rllm.backends.llama.backend import LlamaBackend
from rllm.backends.options import LlamaOptions
from rllm.engine.build import build_scheduler
from rllm.engine.engine import Engine
from rllm.engine.times import StepTimes
from tests.model.loop import Answer, ask
from tests.property.simulator import FreeMoves
from tests.tinymodel import write_tiny_mamba

CTX, PROMPT, TOKENS = 512, 220, 16
TEXTS = (
    "The history of the lighthouse begins with fires that were lit on hills near the sea. ",
    "To bake bread one needs flour, water, salt and time, and of these time matters most. ",
    "A train leaves the city at noon, another leaves the coast an hour later, and they meet. ",
)


def options(kv: str, **more: object) -> LlamaOptions:
    """Room for two of the three prompts."""
    sizes = {"slots": 2, "ctx_per_slot": CTX, "batch_size": 256, "threads": 1, "kv": kv}
    cells = {"kv_cells": CTX} if kv == "unified" else {}
    return LlamaOptions(**{**sizes, **cells, "prefix_store_mb": 64, **more})  # type: ignore[arg-type]


def make_engine(backend: LlamaBackend, *, reuse: bool = True) -> Engine:
    """Whatever can be stored or restored is."""
    stored = backend.stored() if reuse else ()
    scheduler = build_scheduler(
        backend.info, backend.vocabulary, prefix_cache=reuse, moves=FreeMoves(StepTimes()), stored=stored
    )
    return Engine(scheduler, backend, time.monotonic)


def prompts(backend: LlamaBackend) -> list[list[int]]:
    tokenize = backend.vocabulary.tokenize
    return [tokenize(text * 20, add_special=True, parse_special=False)[:PROMPT] for text in TEXTS]


def wait_until(condition: Callable[[], bool]) -> None:
    """Files are written by a thread beside the engine."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("name", "kv"),
    [
        ("tiny", "unified"),
        ("tiny", "split"),
        pytest.param("q8", "split", marks=pytest.mark.model),
        pytest.param("f16", "split", marks=[pytest.mark.model, pytest.mark.slow]),
        pytest.param("f16", "unified", marks=[pytest.mark.model, pytest.mark.slow]),
    ],
)
def test_text_after_a_restore_is_text_after_reuse_in_the_cache(
    request: pytest.FixtureRequest, name: str, kv: str
) -> None:
    """Again the same prompts, then a turn more."""
    model: Path = request.getfixturevalue(f"{name}_model")
    with (
        closing(LlamaBackend(model, options(kv))) as backend,
        closing(LlamaBackend(model, options("split", slots=9, prefix_store_mb=0))) as roomy,
    ):
        asked, engine, resident = prompts(backend), make_engine(backend), make_engine(roomy)
        first = [ask(engine, prompt, TOKENS) for prompt in asked]
        assert [ask(resident, prompt, TOKENS) for prompt in asked] == first
        restores = 0
        for prompt, answer in zip(asked, first, strict=True):
            again = ask(engine, prompt, TOKENS)
            assert again[:2] == ask(resident, prompt, TOKENS)[:2]
            assert again.cached == PROMPT - 1
            turn = [*prompt, *again.tokens, *asked[0][1:9]]  # what was drawn comes back, too
            following = ask(engine, turn, TOKENS)
            assert following[:2] == ask(resident, turn, TOKENS)[:2]
            assert following.cached >= PROMPT + TOKENS - 1
            restores += again.restores + following.restores
            assert name == "q8" or again.tokens == answer.tokens, "equal to a plain prefill"
        assert restores >= 2


@pytest.mark.model
@pytest.mark.parametrize("kv", ["unified", "split"])
def test_quantized_caches_are_stored_as_they_are(q8_model: Path, kv: str) -> None:
    quantized = options(kv, cache_type_k="q8_0", cache_type_v="q8_0")
    with closing(LlamaBackend(q8_model, quantized)) as backend:
        asked, engine = prompts(backend), make_engine(backend)
        for prompt in asked:
            ask(engine, prompt, TOKENS)
        again = [ask(engine, prompt, TOKENS) for prompt in asked]
        resident = ask(engine, asked[-1], TOKENS)
    assert [answer.cached for answer in again] == [PROMPT - 1] * len(asked)
    assert [answer.restores for answer in again] == [1, 1, 1]
    assert resident == Answer(again[-1].tokens, PROMPT - 1, 0)


def test_recurrent_states_are_not_stored(tmp_path: Path) -> None:
    path = write_tiny_mamba(tmp_path / "mamba.gguf")
    with closing(LlamaBackend(path, options("split"))) as backend:
        assert backend.info.store_bytes == 0
        asked, engine = prompts(backend), make_engine(backend)
        assert [ask(engine, prompt, 4).cached for prompt in asked * 2] == [0] * 6


# On disk


@pytest.fixture
def on_disk(tmp_path: Path) -> LlamaOptions:
    return options("split", prefix_store_dir=str(tmp_path / "store"), prefix_store_disk_mb=64)


def files(options: LlamaOptions) -> list[Path]:
    return list(Path(options.prefix_store_dir).rglob("*.prefix"))


def fill(model: Path, options: LlamaOptions) -> list[list[int]]:
    """What the prompts are answered, in a process of which two prefixes stay on disk."""
    with closing(LlamaBackend(model, options)) as backend:
        engine = make_engine(backend)
        expected = [ask(engine, prompt, TOKENS).tokens for prompt in prompts(backend)]
        wait_until(lambda: len(files(options)) == 2)
    return expected


def test_files_are_used_again_after_a_restart(tiny_model: Path, on_disk: LlamaOptions) -> None:
    expected = fill(tiny_model, on_disk)
    with closing(LlamaBackend(tiny_model, on_disk)) as backend:
        assert len(backend.stored()) == 2
        engine = make_engine(backend)
        found = [ask(engine, prompt, TOKENS) for prompt in prompts(backend)]
    assert [answer.tokens for answer in found] == expected
    assert [answer.cached for answer in found] == [PROMPT - 1, PROMPT - 1, 0]


def test_other_settings_do_not_use_them(tiny_model: Path, on_disk: LlamaOptions) -> None:
    fill(tiny_model, on_disk)
    changed = options(
        "split",
        cache_type_k="bf16",
        prefix_store_dir=on_disk.prefix_store_dir,
        prefix_store_disk_mb=64,
    )
    with closing(LlamaBackend(tiny_model, changed)) as backend:
        assert not backend.stored()
        assert not files(on_disk), "the old ones are removed: nobody could use them"


def flip(data: bytearray) -> None:
    data[len(data) // 2] ^= 1


def cut(data: bytearray) -> None:
    del data[-1:]


def rename(data: bytearray) -> None:
    data[40] ^= 1  # within the fingerprint


@pytest.mark.parametrize("damage", [flip, cut, rename])
def test_a_damaged_file_is_deleted_and_computed_again(
    tiny_model: Path, on_disk: LlamaOptions, damage: Callable[[bytearray], None], warnings: list[str]
) -> None:
    expected = fill(tiny_model, on_disk)
    for path in files(on_disk):
        data = bytearray(path.read_bytes())
        damage(data)
        path.write_bytes(data)
    with closing(LlamaBackend(tiny_model, on_disk)) as backend:
        engine = make_engine(backend)
        found = [ask(engine, prompt, TOKENS) for prompt in prompts(backend)]
    assert [answer.tokens for answer in found] == expected
    assert max(answer.cached for answer in found) <= 1, "nothing but a common first letter"
    assert sum("is deleted" in line for line in warnings) == 2


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    before = lib.log.sink
    lines: list[str] = []
    lib.send_log_to(lambda level, line: lines.append(line) if level == "warning" else None)
    yield lines
    lib.send_log_to(before)
