"""A mini engine for tests of the backend alone: prompts side by side, greedy, a fixed number of tokens."""

from __future__ import annotations

from collections.abc import Sequence

from rllm.engine.port import Backend, Chunk, OpenSampler, Plan, Status, Truncate
from rllm.engine.types import SamplingParams

GREEDY = SamplingParams(temperature=0.0)


def generate(backend: Backend, prompts: Sequence[Sequence[int]], count: int) -> list[list[int]]:
    """``count`` tokens for each prompt, none of which may be longer than the batch."""
    for seq, prompt in enumerate(prompts):
        ops = (Truncate(seq, 0), OpenSampler(seq, GREEDY, prompt))
        result = backend.execute(Plan(ops, (Chunk(seq, prompt[:-1], 0, False),)))
        assert result.status is Status.OK
    texts = [list(prompt) for prompt in prompts]
    for _ in range(count):
        chunks = tuple(Chunk(seq, text[-1:], len(text) - 1, True) for seq, text in enumerate(texts))
        result = backend.execute(Plan(chunks=chunks))
        assert result.status is Status.OK
        for seq, text in enumerate(texts):
            text.append(result.tokens[seq])
    return [text[len(prompt) :] for prompt, text in zip(prompts, texts, strict=True)]
