"""Memories that cannot forget, or forget by themselves: whatever cannot be reused is computed again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rllm.backends.llama import opening, settings
from rllm.backends.llama.backend import LlamaBackend
from rllm.backends.llama.context import ContextOptions
from rllm.backends.llama.model import Model
from rllm.backends.options import LlamaOptions
from rllm.engine.build import build_scheduler
from rllm.engine.engine import Engine
from rllm.engine.port import Chunk, OpenSampler, Plan, Truncate
from rllm.engine.types import EngineRequest
from tests.stress.drive import alone
from tests.stress.run import run
from tests.stress.test_stress import BYTES
from tests.stress.workload import GREEDY, Shape
from tests.tinymodel import write_tiny_gemma, write_tiny_mamba

WINDOW = 32
SHAPE = Shape(count=12, max_prompt=300, max_tokens=16)
MODELS: dict[str, Callable[[Path], Path]] = {
    "mamba": write_tiny_mamba,
    "gemma": lambda path: write_tiny_gemma(path, window=WINDOW),
}


def options(kv: str, cells: int = 0) -> LlamaOptions:
    return LlamaOptions(slots=4, ctx_per_slot=512, batch_size=64, threads=1, kv=kv, kv_cells=cells)


def window_only(options: LlamaOptions, model: Model) -> ContextOptions:
    return replace(settings.context_options(options, model), swa_full=False)


@pytest.fixture(params=["mamba", "gemma"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return MODELS[request.param](tmp_path / "tiny.gguf")


@pytest.fixture
def gemma(tmp_path: Path) -> Path:
    return write_tiny_gemma(tmp_path / "gemma.gguf", window=WINDOW)


@pytest.mark.parametrize("kv", ["split", "unified"])
def test_among_others_as_alone(kv: str, model: Path) -> None:
    outcome = run(model, kv, options(kv, 640 if kv == "unified" else 0), SHAPE, BYTES)
    assert not outcome.cut_short
    assert not outcome.unexcused
    assert len(outcome.differences) * 10 <= SHAPE.count
    assert outcome.together.most_running >= 3


@pytest.mark.parametrize("kv", ["split", "unified"])
def test_among_others_as_alone_where_only_the_window_is_kept(
    kv: str, gemma: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "context_options", window_only)
    outcome = run(gemma, kv, options(kv), SHAPE, BYTES)
    assert not outcome.cut_short
    assert not outcome.unexcused
    assert len(outcome.differences) * 10 <= SHAPE.count


class Conversation:
    """Turn after turn on one engine."""

    def __init__(self, backend: LlamaBackend) -> None:
        self.backend = backend
        self.engine = Engine(build_scheduler(backend.info, backend.vocabulary), backend, time.monotonic)
        self.text: tuple[int, ...] = ()
        self.cached: list[int] = []
        self.said: list[tuple[tuple[int, ...], list[int]]] = []

    def turn(self, words: list[int]) -> None:
        prompt = (*self.text, *words)
        request = EngineRequest(
            id=f"t{len(self.said)}", prompt=prompt, max_tokens=8, ignore_eos=True, sampling=GREEDY
        )
        self.engine.submit(request, time.monotonic())
        tokens: list[int] = []
        while self.engine.has_work:
            for event in self.engine.step().events:
                tokens += event.tokens
                if event.usage is not None:
                    self.cached.append(event.usage.cached_tokens)
        self.said.append((prompt, tokens))
        self.text = (*prompt, *tokens)

    def check(self) -> None:
        """Every answer is what the same prompt gets on an empty cache."""
        for number, (prompt, tokens) in enumerate(self.said):
            request = EngineRequest(
                id=f"c{number}", prompt=prompt, max_tokens=8, ignore_eos=True, sampling=GREEDY
            )
            assert alone(self.backend, request).tokens == tokens


@pytest.fixture
def conversation(model: Path) -> Iterator[Conversation]:
    made = LlamaBackend(model, options("split"))
    yield Conversation(made)
    made.close()


def test_a_conversation_goes_on_where_it_ended(conversation: Conversation) -> None:
    """Nothing is cut off, so even a recurrent memory can be continued."""
    for number in range(3):
        conversation.turn(BYTES[number * 60 : number * 60 + 60])
    lengths = [len(prompt) for prompt, _ in conversation.said]
    assert conversation.cached == [0, lengths[0] + 7, lengths[1] + 7]
    conversation.check()


def test_another_ending_is_computed_again_where_nothing_can_be_cut_off(conversation: Conversation) -> None:
    conversation.turn(BYTES[:60])
    conversation.text = conversation.text[:60]
    conversation.turn(BYTES[100:160])
    can_trim = conversation.backend.info.can_reuse_prefix
    assert conversation.cached == [0, 60 if can_trim else 0]
    conversation.check()


def test_a_window_that_has_moved_on_refuses_to_be_cut_back(
    gemma: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp removes the end without complaint, though what the new end must see is gone."""
    monkeypatch.setattr(opening, "context_options", window_only)
    prompt = BYTES[:400]
    backend = LlamaBackend(gemma, options("split"))
    try:
        backend.execute(Plan((OpenSampler(0, GREEDY, prompt),)))
        for begin in range(0, 400, 50):
            backend.execute(Plan(chunks=(Chunk(0, prompt[begin : begin + 50], begin, False),)))
        kept = backend.execute(Plan((Truncate(0, 399),), (Chunk(0, prompt[399:], 399, True),)))
        assert kept.lost_prefix == frozenset()
        lost = backend.execute(Plan((Truncate(0, 40),), (Chunk(0, prompt[40:90], 40, True),)))
        assert lost.lost_prefix == {0}
    finally:
        backend.close()


def test_a_lost_window_is_computed_again(gemma: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same through the scheduler: the answer is right, and usage does not claim a hit."""
    monkeypatch.setattr(opening, "context_options", window_only)
    backend = LlamaBackend(gemma, options("split"))
    try:
        conversation = Conversation(backend)
        conversation.turn(BYTES[:400])
        conversation.text = conversation.text[:100]
        conversation.turn(BYTES[500:540])
        assert conversation.cached == [0, 0]
        conversation.check()
    finally:
        backend.close()
