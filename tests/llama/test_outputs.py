"""Drawing from the highest logits of each row, as a GPU finds them, changes nothing but the time it takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from rllm.backends.llama import lib
from rllm.backends.llama.backend import LlamaBackend
from rllm.backends.llama.context import Context
from rllm.backends.llama.outputs import MOST_ROWS, Outputs
from rllm.backends.options import LlamaOptions
from rllm.engine.port import Chunk, OpenSampler, Plan
from rllm.engine.types import SamplingParams

PROMPT = list(range(10, 20))
SLOTS = 64
GREEDY = SamplingParams(temperature=0.0)
ON_THE_CARD = (
    GREEDY,
    SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, seed=7),
    SamplingParams(temperature=0.7, top_k=5, seed=8),
    SamplingParams(temperature=0.5, top_p=0.5, seed=9),
)
ON_THE_HOST = (
    SamplingParams(temperature=1.0, seed=3),
    SamplingParams(temperature=0.0, num_logprobs=2),
    SamplingParams(temperature=0.0, repetition_penalty=1.3),
    SamplingParams(temperature=0.0, logit_bias=((30, 4.0),)),
    SamplingParams(temperature=0.9, top_k=90, seed=5),
    SamplingParams(temperature=0.0, bad_words=((21, 22),)),
    SamplingParams(temperature=0.0, allowed_tokens=(40, 41, 42)),
)


class NumpyFinder:
    """What rllm.cu does on a card, on the host's logits; counts how often they are fetched."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.rows = self.count = 0
        self.fetched = 0

    def expect(self, rows: int, count: int) -> None:
        self.rows, self.count = rows, count

    def found(self) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]] | None:
        if self.rows == 0:
            return None
        pointer = lib.api.llama_get_logits(self.context.pointer)
        logits = np.ctypeslib.as_array(pointer, shape=(self.rows, self.context.vocab_size))
        ids = np.argsort(-logits, axis=1, kind="stable")[:, : self.count].astype(np.int32)
        sums = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True)).sum(axis=1)
        return np.take_along_axis(logits, ids, 1), ids, sums.astype(np.float32)

    def fetch(self) -> None:
        self.fetched += 1


@pytest.fixture
def backend(tiny_model: Path) -> Iterator[LlamaBackend]:
    options = LlamaOptions(slots=SLOTS, ctx_per_slot=64, batch_size=1024, threads=1, kv="split")
    made = LlamaBackend(tiny_model, options)
    made.inspect().pads = False  # whether a row is added depends on measured times
    yield made
    made.close()


def watch(backend: LlamaBackend) -> NumpyFinder:
    decoder = backend.inspect()
    finder = NumpyFinder(decoder.context)
    decoder.draws.outputs = Outputs(decoder.context, finder)
    return finder


def texts(
    backend: LlamaBackend, params: list[SamplingParams], banned: tuple[int, ...] = ()
) -> tuple[dict[int, list[int]], int]:
    """Six tokens of every sequence, and how many of them were drawn from the highest logits."""
    for seq in range(len(params)):
        backend.inspect().context.truncate(seq, 0)
    ops = tuple(OpenSampler(seq, each, PROMPT, banned) for seq, each in enumerate(params))
    chunks = tuple(Chunk(seq, [*PROMPT[seq % 3 :], 20 + seq % 40], 0, True) for seq in range(len(params)))
    result = backend.execute(Plan(ops, chunks))
    drawn, on_card = {seq: list(tokens) for seq, tokens in result.tokens.items()}, result.card_samples
    lengths = {chunk.seq: len(chunk.tokens) for chunk in chunks}
    for step in range(5):
        plan = Plan(
            chunks=tuple(
                Chunk(seq, tokens[-1:], lengths[seq] + step, True) for seq, tokens in sorted(drawn.items())
            )
        )
        result = backend.execute(plan)
        on_card += result.card_samples
        for seq, tokens in result.tokens.items():
            drawn[seq].extend(tokens)
    return drawn, on_card


@pytest.mark.parametrize("count", [1, 8, 64])
def test_the_same_is_drawn_from_the_highest_as_from_all(backend: LlamaBackend, count: int) -> None:
    params = [ON_THE_CARD[seq % 4] for seq in range(count)]
    expected, on_card = texts(backend, params)
    assert on_card == 0
    finder = watch(backend)
    assert texts(backend, params) == (expected, 6 * count)
    assert finder.fetched == 0


def test_in_mixed_company_each_takes_its_own_way(backend: LlamaBackend) -> None:
    params = [*ON_THE_CARD, *ON_THE_HOST] * 3
    expected, _ = texts(backend, params)
    finder = watch(backend)
    assert texts(backend, params) == (expected, 6 * 12)
    assert finder.fetched == 6


def test_banned_tokens_are_passed_over(backend: LlamaBackend) -> None:
    params = [ON_THE_CARD[seq % 3] for seq in range(6)]
    free, _ = texts(backend, params)
    banned = tuple({tokens[0] for tokens in free.values()})
    expected, _ = texts(backend, params, banned)
    watch(backend)
    assert texts(backend, params, banned) == (expected, 36)
    assert not {tokens[0] for tokens in expected.values()} & set(banned)


def test_only_what_somebody_can_use_is_asked_for(backend: LlamaBackend) -> None:
    finder = watch(backend)
    texts(backend, [ON_THE_HOST[0]] * 3)
    assert (finder.rows, finder.count) == (0, 0)
    texts(backend, [GREEDY, ON_THE_HOST[0]])
    assert (finder.rows, finder.count) == (2, 1)
    backend.inspect().draws.outputs.expect([1] * (MOST_ROWS + 1))
    assert finder.rows == 0


def test_something_is_done_while_a_device_computes_and_before_a_prompt(backend: LlamaBackend) -> None:
    backend._info = msgspec.structs.replace(backend._info, overlaps=True)
    done: list[str] = []
    wait = backend.inspect().context.synchronize
    backend.inspect().context.synchronize = lambda: (done.append("waited"), wait())[1]  # type: ignore[method-assign,func-returns-value]
    decode = backend.inspect().context.decode
    backend.inspect().context.decode = lambda batch: (done.append("called"), decode(batch))[1]  # type: ignore[method-assign,func-returns-value]
    ops = (OpenSampler(0, GREEDY, PROMPT),)
    token = backend.execute(Plan(ops, (Chunk(0, PROMPT, 0, True),)), lambda: done.append("sent")).tokens[0]
    assert done == ["sent", "called", "waited"]
    done.clear()
    backend.execute(Plan(chunks=(Chunk(0, token, len(PROMPT), True),)), lambda: done.append("sent"))
    assert done == ["called", "sent", "waited"]
