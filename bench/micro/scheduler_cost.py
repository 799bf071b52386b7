"""What a step costs in Python: plan() + commit() with 256 requests running and 1,000 waiting.

    python -m micro.scheduler_cost [--steps 2000]

Pure scheduler, no model: every request streams with four stop strings, one of which begins in every word,
and its text never matches one. Requests end and others take their place all the time. Prints percentiles of
CPU time in microseconds, which a busy machine distorts least.
"""

from __future__ import annotations

import gc
import random
import time

import click
import numpy as np

from rllm.engine.build import build_scheduler
from rllm.engine.port import Plan, Status, StepResult
from rllm.engine.types import EngineRequest, ModelInfo, SamplingParams

RUNNING, WAITING = 256, 1000


class Words:
    """A vocabulary whose every token is a short word."""

    size = 1000
    end_tokens = frozenset({0})
    chat_template = None
    bos_text = eos_text = ""

    def piece(self, token: int) -> bytes:
        return b" word%d" % (token % 97)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        raise NotImplementedError

    def detokenize(self, tokens: object, *, special: bool) -> str:
        raise NotImplementedError


def make_info() -> ModelInfo:
    return ModelInfo(
        path="", description="", architecture="", num_params=0, size_bytes=0, vocab_size=1000,
        num_ctx_train=4096, slots=RUNNING, num_sequences=RUNNING, ctx_per_slot=4096, kv_cells=RUNNING * 4096,
        kv_unified=False, kv_bytes=0, batch_size=2048, device="", can_reuse_prefix=True,
    )  # fmt: skip


def make_request(number: int, rng: random.Random) -> EngineRequest:
    shared = tuple(range(1, 200)) if number % 2 else ()
    return EngineRequest(
        id=f"request-{number}",
        prompt=shared + tuple(rng.randrange(1, 1000) for _ in range(200)),
        max_tokens=rng.randrange(64, 256),
        stop=("\nUser:", "</answer>", "wordy wordy", "word1 word2 word3"),
        sampling=SamplingParams(temperature=0.0),
        priority=rng.choice((0, 0, 0, 1)),
    )


def answer(plan: Plan, rng: random.Random) -> StepResult:
    tokens = {chunk.seq: [rng.randrange(1, 1000)] for chunk in plan.chunks if chunk.sample}
    return StepResult(Status.OK, tokens=tokens)


@click.command(help=__doc__)
@click.option("--steps", default=2000, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(steps: int, seed: int) -> None:
    gc.disable()  # as a worker does while it is busy
    rng = random.Random(seed)
    scheduler = build_scheduler(make_info(), Words())
    number, times = 0, []
    for step in range(steps + 200):
        while scheduler.num_running + scheduler.num_waiting < RUNNING + WAITING:
            scheduler.submit(make_request(number, rng), step * 0.02)
            number += 1
        started = time.thread_time()
        plan = scheduler.plan(step * 0.02)
        planned = time.thread_time()
        result = answer(plan, rng)
        answered = time.thread_time()
        scheduler.commit(plan, result, step * 0.02)
        if step >= 200:
            times.append(planned - started + time.thread_time() - answered)
    p50, p90, p99, top = np.percentile(np.array(times) * 1e6, [50, 90, 99, 100])
    click.echo(f"plan + commit, {RUNNING} running, {WAITING} waiting, {steps} steps, {number} requests")
    click.echo(f"  p50 {p50:.0f} us   p90 {p90:.0f} us   p99 {p99:.0f} us   max {top:.0f} us")


if __name__ == "__main__":
    main()
