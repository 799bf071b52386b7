"""Threads draw what one thread would draw."""

from __future__ import annotations

import numpy as np
import pytest

from rllm.backends.llama.draws import Draw, Draws
from rllm.backends.llama.sampler import Sampler
from rllm.engine.port import OpenSampler
from rllm.engine.types import SamplingParams

VOCAB = 1000


def draws(count: int) -> list[Draw]:
    rows = np.random.default_rng(1).normal(size=(count, VOCAB)).astype(np.float32)
    made = []
    for seq in range(count):
        params = SamplingParams(temperature=0.0 if seq % 3 else 0.9, seed=seq)
        sampler = Sampler(OpenSampler(seq, params, (), (0,)), vocab_size=VOCAB, num_ctx=64)
        made.append(Draw(seq, sampler, rows[seq], seq))
    return made


@pytest.mark.parametrize("count", [1, 5, 16, 33])
def test_threads_change_nothing(count: int) -> None:
    alone, together = Draws(VOCAB, 1), Draws(VOCAB, 4)
    try:
        expected = alone.draw(draws(count), None)
        assert sorted(expected) == list(range(count))
        assert together.draw(draws(count), None) == expected
    finally:
        together.close()
        alone.close()
