"""A real model with sliding windows through the real engine: Gemma 3 270M, where it was pulled."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rllm.backends.llama import opening
from rllm.backends.llama.backend import LlamaBackend
from rllm.backends.options import LlamaOptions
from tests.conftest import MODELS
from tests.stress.run import SOURCE, run
from tests.stress.test_memories import Conversation, window_only
from tests.stress.workload import Shape

MODEL = MODELS / "gemma-3-270m-q4_k_m.gguf"
SHAPE = Shape(count=6, max_prompt=600, max_tokens=12, arrivals_per_step=1.0, seed=25)
"""With this seed three prompts begin like others by 200 tokens and more; one is longer than the window."""
pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.skipif(not MODEL.exists(), reason="rllm-models pull gemma3-270m"),
]


def options(kv: str, ctx: int = 1024) -> LlamaOptions:
    return LlamaOptions(slots=4, ctx_per_slot=ctx, batch_size=256, threads=1, kv=kv)


@pytest.fixture
def backend() -> Iterator[LlamaBackend]:
    made = LlamaBackend(MODEL, options("split", 2048))
    yield made
    made.close()


def words(backend: LlamaBackend, count: int) -> list[int]:
    text = SOURCE.read_text()[:20_000]
    return backend.vocabulary.tokenize(text, add_special=True, parse_special=False)[:count]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kv", ["split", "unified"])
def test_among_others_as_alone(kv: str) -> None:
    """Q4_K kernels change with the batch, so what may differ is only bounded by the measured floor."""
    outcome = run(MODEL, kv, options(kv), SHAPE)
    print(f"floor {outcome.floor.gap:.3g}; {len(outcome.differences)} differ: {outcome.differences}")
    assert not outcome.unexcused
    assert outcome.together.cached_tokens > 0


def test_a_conversation_longer_than_the_window_goes_on_where_it_ended(backend: LlamaBackend) -> None:
    text = words(backend, 1000)
    conversation = Conversation(backend)
    conversation.turn(text[:700])
    conversation.turn(text[700:760])
    conversation.turn(text[760:800])
    lengths = [len(prompt) for prompt, _ in conversation.said]
    assert conversation.cached == [0, lengths[0] + 7, lengths[1] + 7]
    assert all(len(tokens) == 8 for _, tokens in conversation.said)


def test_an_earlier_turn_can_be_changed(backend: LlamaBackend) -> None:
    """The cache is kept in full, so what is before the change is reused although it left the window."""
    text = words(backend, 1100)
    conversation = Conversation(backend)
    conversation.turn(text[:900])
    conversation.text = conversation.text[:300]
    conversation.turn(text[1000:1040])
    assert conversation.cached == [0, 300]


def test_where_only_the_window_is_kept_it_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "context_options", window_only)
    made = LlamaBackend(MODEL, options("split", 2048))
    try:
        text = words(made, 1700)
        conversation = Conversation(made)
        conversation.turn(text[:1500])
        conversation.text = conversation.text[:600]
        conversation.turn(text[1600:1640])
        assert conversation.cached == [0, 0]
        conversation.turn(text[1640:1660])
        assert conversation.cached[2] == 640 + 7
    finally:
        made.close()
