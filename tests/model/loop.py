"""A mini engine for tests of the backend alone: prompts side by side, greedy, a fixed number of tokens."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import NamedTuple

from rllm.engine.engine import Engine
from rllm.engine.port import Backend, Chunk, OpenSampler, Plan, Status, Truncate
from rllm.engine.types import EngineRequest, Event, SamplingParams

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
            text.append(result.tokens[seq][0])
    return [text[len(prompt) :] for prompt, text in zip(prompts, texts, strict=True)]


_numbers = itertools.count()


class Answer(NamedTuple):
    tokens: list[int]
    cached: int
    restores: int
    """How many stored prefixes came back while it was computed."""


def ask(engine: Engine, prompt: Sequence[int], count: int) -> Answer:
    """``count`` greedy tokens from a whole engine, which is idle before and after."""
    request = EngineRequest(
        id=f"request-{next(_numbers)}",
        prompt=tuple(prompt),
        max_tokens=count,
        ignore_eos=True,
        sampling=GREEDY,
    )
    engine.submit(request, time.monotonic())
    events: list[Event] = []
    restores = 0
    while engine.has_work:
        outcome = engine.step()
        events += [event for event in outcome.events if event.request_id == request.id]
        restores += outcome.record.restores if outcome.record else 0
    usage = events[-1].usage
    assert usage is not None, events[-1].error
    return Answer([token for event in events for token in event.tokens], usage.cached_tokens, restores)
