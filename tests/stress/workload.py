"""Requests that share beginnings, come and go at any time, and have priorities and tenants of their own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from rllm.engine.types import EngineRequest, SamplingParams

GREEDY = SamplingParams(temperature=0.0)


@dataclass(frozen=True)
class Arrival:
    """A request, the step before which it arrives, and the later one before which its client leaves."""

    request: EngineRequest
    step: int
    leaves: int | None


@dataclass(frozen=True)
class Shape:
    count: int
    max_prompt: int
    max_tokens: int
    seed: int = 1
    arrivals_per_step: float = 0.25


def arrivals(source: Sequence[int], shape: Shape) -> list[Arrival]:
    """Prompts are passages of ``source``: three of four begin like an earlier one and leave it anywhere."""
    rng = random.Random(shape.seed)
    prompts: list[tuple[int, ...]] = []
    made = []
    step = 0.0
    for number in range(shape.count):
        prompts.append(_prompt(source, prompts, shape.max_prompt, rng))
        step += rng.expovariate(shape.arrivals_per_step)
        leaves = int(step) + rng.randint(1, 2 * shape.max_tokens) if rng.random() < 0.15 else None
        request = EngineRequest(
            id=f"r{number:03d}",
            prompt=prompts[-1],
            max_tokens=rng.randint(shape.max_tokens // 4, shape.max_tokens),
            ignore_eos=rng.random() < 0.5,
            sampling=GREEDY,
            priority=rng.choice((-1, 0, 0, 0, 1)),
            cache_salt=rng.choice(("", "", "", "tenant")),
        )
        made.append(Arrival(request, int(step), leaves))
    return made


def _prompt(
    source: Sequence[int], earlier: Sequence[tuple[int, ...]], longest: int, rng: random.Random
) -> tuple[int, ...]:
    length = rng.randint(4, longest)
    shared: tuple[int, ...] = ()
    if earlier and rng.random() < 0.75:
        model = rng.choice(earlier)
        shared = model[: rng.randint(1, len(model))]
    own = max(1, length - len(shared))
    begin = rng.randrange(len(source) - longest)
    return (*shared, *source[begin : begin + own])[:longest]
