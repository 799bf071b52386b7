"""Where the time of one decode step goes inside the llama.cpp backend: native calls, drawing, Python.

    python -m micro.engine_overhead models/q4.gguf --slots 8 --steps 100

"python" is what is left of ``execute`` after llama_decode (with its wait) and the drawing of tokens:
filling the batch, dictionaries, the result. Drawing is given apart, as most of it is native code.
What the scheduler adds to a step is measured by scheduler_cost.py.
"""

from __future__ import annotations

from rllm.backends.llama.backend import LlamaBackend  # isort: skip  (before numpy)

from statistics import median
from time import perf_counter

import click
from tabulate import tabulate

from rllm.backends.llama.batch import Batch
from rllm.backends.options import LlamaOptions
from rllm.engine.port import Chunk, OpenSampler, Plan, Truncate
from rllm.engine.types import SamplingParams

PARAMS = {
    "greedy": SamplingParams(temperature=0.0),
    "temperature alone": SamplingParams(temperature=0.8, seed=1),
    "top_k 40, top_p, min_p": SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, seed=1),
    "top_p alone": SamplingParams(temperature=0.8, top_p=0.95, seed=1),
    "top_k 40, penalties": SamplingParams(temperature=0.8, top_k=40, repetition_penalty=1.1, seed=1),
    "greedy, 5 logprobs": SamplingParams(temperature=0.0, num_logprobs=5),
}
PROMPT = list(range(100, 132))


def time_steps(backend: LlamaBackend, params: SamplingParams, slots: int, steps: int) -> list[float]:
    """Medians over the steps, in seconds: the whole call, llama_decode, drawing, and the rest."""
    ops = tuple(op for seq in range(slots) for op in (Truncate(seq, 0), OpenSampler(seq, params, PROMPT)))
    backend.execute(Plan(ops))
    for seq in range(slots):
        result = backend.execute(Plan((), (Chunk(seq, PROMPT, 0, True),)))
    tokens = dict.fromkeys(range(slots), result.tokens[slots - 1])
    rows: list[tuple[float, float, float, float]] = []
    for step in range(steps):
        plan = Plan((), tuple(Chunk(seq, tokens[seq], len(PROMPT) + step, True) for seq in range(slots)))
        began = perf_counter()
        result = backend.execute(plan)
        whole = perf_counter() - began
        rows.append((whole, result.execute_s, result.sample_s, whole - result.execute_s - result.sample_s))
        tokens = dict(result.tokens)
    return [median(column) for column in zip(*rows, strict=True)]


def time_fill(slots: int, chunk: int) -> float:
    """Filling a batch with ``slots`` chunks, in seconds."""
    batch = Batch(slots * chunk, slots)
    tokens = tuple(range(chunk))
    times = []
    for _ in range(200):
        began = perf_counter()
        batch.clear()
        for seq in range(slots):
            batch.add(seq, tokens, 7, outputs=1)
        times.append(perf_counter() - began)
    return median(times)


@click.command()
@click.argument("gguf", type=click.Path(exists=True, dir_okay=False))
@click.option("--slots", default=8, show_default=True)
@click.option("--steps", default=100, show_default=True)
@click.option("--threads", default=0, show_default="all cores")
@click.option("--kv", default="auto", show_default=True)
def main(gguf: str, slots: int, steps: int, threads: int, kv: str) -> None:
    """Time decode steps of SLOTS sequences with different samplers."""
    options = LlamaOptions(slots=slots, ctx_per_slot=len(PROMPT) + steps + 1, threads=threads, kv=kv)
    backend = LlamaBackend(gguf, options)
    click.echo(
        f"{backend.info.description} on {backend.info.device}, {slots} sequences, medians of {steps} steps"
    )
    table = []
    for name, params in PARAMS.items():
        whole, decode, draw, python = time_steps(backend, params, slots, steps)
        share = f"{100 * python / whole:.2f} %"
        table.append([name, whole * 1e3, decode * 1e3, draw * 1e6 / slots, python * 1e6, share])
    headers = [
        "sampler",
        "step (ms)",
        "llama_decode (ms)",
        "draw (us/sequence)",
        "python (us)",
        "python share",
    ]
    click.echo(tabulate(table, headers=headers, floatfmt=".2f"))
    click.echo(f"batch fill: {time_fill(slots, 1) * 1e6:.1f} us for {slots} decode rows, ", nl=False)
    click.echo(f"{time_fill(1, 512) * 1e6:.1f} us for one chunk of 512")
    backend.close()


if __name__ == "__main__":
    main()
