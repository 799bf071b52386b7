"""Where the time of a step goes on an NVIDIA GPU: a decode of many sequences, and a prefill.

    python -m micro.gpu_step --gguf model.gguf [--rows 64] [--depth 464] [--prefill-rows 2000] [--out FILE]

A step is timed as it is (the call of llama_decode, the wait for the card, the argmax over the logits on the
host), and again under a profiler, which says what ran on the card and how long it did nothing. The profiler
is PyTorch's (`pip install torch`); without it only the first part is given. Weights and tokens do not matter.
Environment variables of llama.cpp (GGML_CUDA_…, RLLM_KERNELS) apply as they do to a server.
"""

from __future__ import annotations

from rllm.backends.llama import lib  # isort: skip  (before numpy, and before torch)

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import click
import numpy as np
from tabulate import tabulate

from rllm.backends.llama.batch import Batch
from rllm.backends.llama.context import Context, ContextOptions
from rllm.backends.llama.model import Model

api = lib.api

GROUPS = (
    ("matrices", r"gemm|cutlass|nvjet|xmma|mul_mat|mmq|mmvq|splitKreduce|cublas"),
    ("attention", r"flash_attn|fattn|soft_max"),
    ("conversions", r"convert_unary|dequantize|cpy_|quantize"),
    ("norms and sums", r"norm|k_bin_bcast|op_add"),
    ("gates", r"glu|silu|gated"),
    ("rope and cache", r"rope|set_rows"),
    ("copies", r"Memcpy|Memset"),
)
"""What a kernel is for, by its name; the first that matches."""


@dataclass
class Step:
    """Medians over the steps, in ms."""

    what: str
    rows: int
    wall: float
    call: float
    wait: float
    argmax: float
    busy: float | None = None
    """Time in which the card did something; under the profiler."""
    kernels: int | None = None
    groups: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Time of the kernels and how many, by what they are for. They may overlap a little."""
    names: list[tuple[str, float, int]] = field(default_factory=list)
    """The ten that take longest."""


def group_of(name: str) -> str:
    return next((group for group, pattern in GROUPS if re.search(pattern, name, re.IGNORECASE)), "other")


def busy_us(spans: list[tuple[float, float]]) -> float:
    """Length of the union of (begin, end)."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


class Bare:
    """A context that computes steps without a scheduler."""

    def __init__(self, model: Model, options: ContextOptions) -> None:
        self._context = Context(model, options)
        self._batch = Batch(options.batch_size, options.num_sequences)
        self._random = np.random.default_rng(1)
        self._vocab = model.vocab_size

    def prefill(self, rows: int, sequences: int, first: int = 0) -> tuple[float, float, float]:
        """As many tokens of each of ``sequences``, from their start."""
        self._batch.clear()
        for seq in range(first, first + sequences):
            self._context.truncate(seq, 0)
            tokens = self._random.integers(1000, self._vocab, rows // sequences).tolist()
            self._batch.add(seq, tokens, 0, outputs=1)
        return self._run(sequences)

    def decode(self, sequences: int, at: int) -> tuple[float, float, float]:
        self._batch.clear()
        for seq in range(sequences):
            self._batch.add(seq, [int(self._random.integers(1000, self._vocab))], at, outputs=1)
        return self._run(sequences)

    def _run(self, outputs: int) -> tuple[float, float, float]:
        began = perf_counter()
        if (code := self._context.decode(self._batch)) != 0:
            raise click.ClickException(f"llama_decode returned {code}")
        called = perf_counter()
        self._context.synchronize()
        waited = perf_counter()
        pointer = api.llama_get_logits(self._context.pointer)
        logits = np.ctypeslib.as_array(pointer, shape=(outputs, self._vocab))
        logits.argmax(axis=1)
        return called - began, waited - called, perf_counter() - waited


def timed(what: str, rows: int, steps: Iterator[tuple[float, float, float]]) -> Step:
    measured = list(steps)
    call, wait, argmax = (1000 * median(column) for column in zip(*measured, strict=True))
    wall = 1000 * median(sum(step) for step in measured)
    return Step(what, rows, wall, call, wait, argmax)


def profiled(step: Step, run: Callable[[], object], count: int) -> None:
    """Fill in what ran on the card in each of ``count`` steps."""
    try:
        from torch.autograd import DeviceType
        from torch.profiler import ProfilerActivity, profile
    except ImportError:
        return
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(count):
            run()
    events: list[Any] = [e for e in profiler.events() if e.device_type == DeviceType.CUDA]
    if not events:
        return
    step.busy = busy_us([(e.time_range.start, e.time_range.end) for e in events]) / count / 1000
    step.kernels = round(len(events) / count)
    names: dict[str, tuple[float, int]] = {}
    for event in events:
        ms, times = names.get(event.name, (0.0, 0))
        names[event.name] = (ms + event.time_range.elapsed_us() / count / 1000, times + 1)
    for name, (ms, times) in names.items():
        before, number = step.groups.get(group_of(name), (0.0, 0))
        step.groups[group_of(name)] = (before + ms, number + round(times / count))
    longest = sorted(names.items(), key=lambda item: -item[1][0])[:10]
    step.names = [(name[:120], ms, round(times / count)) for name, (ms, times) in longest]


def show(step: Step) -> str:
    lines = [
        f"{step.what}, {step.rows} rows: {step.wall:.2f} ms = call {step.call:.2f} + wait {step.wait:.2f} + "
        f"argmax on the host {step.argmax:.2f}"
    ]
    if step.busy is not None:
        lines.append(f"on the card: busy {step.busy:.2f} ms, {step.kernels} kernels and copies")
        rows = [(group, f"{ms:.2f}", count) for group, (ms, count) in sorted(step.groups.items())]
        lines.append(tabulate(rows, headers=("", "ms", "number")))
    return "\n".join(lines)


@click.command()
@click.option("--gguf", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--rows", default=64, show_default=True, help="Sequences that decode.")
@click.option("--depth", default=464, show_default=True, help="Tokens that each of them has.")
@click.option("--prefill-rows", default=2000, show_default=True)
@click.option("--prompts", default=5, show_default=True, help="Prompts that share the prefill.")
@click.option("--steps", default=40, show_default=True)
@click.option("--graphs", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also as JSON.")
def main(
    gguf: Path,
    rows: int,
    depth: int,
    prefill_rows: int,
    prompts: int,
    steps: int,
    graphs: str,
    out: Path | None,
) -> None:
    """Time and take apart decode steps of ROWS sequences, and prefills."""
    per_sequence = max(depth + 3 * steps, prefill_rows // prompts) + 1
    model = Model(gguf, cuda_graphs=graphs)
    sequences = max(rows, prompts)
    options = ContextOptions(
        num_cells=sequences * per_sequence,
        num_sequences=sequences,
        batch_size=max(2048, prefill_rows, sequences),
        ubatch_size=max(2048, prefill_rows),
        num_outputs=sequences,
        kv_unified=False,
    )
    bare = Bare(model, options)
    prefill = timed(
        "prefill", prefill_rows, (bare.prefill(prefill_rows, prompts) for _ in range(steps // 4 + 2))
    )
    profiled(prefill, lambda: bare.prefill(prefill_rows, prompts), 3)
    at_once = max(1, 2048 // depth)
    for first in range(0, rows, at_once):
        bare.prefill(depth * min(at_once, rows - first), min(at_once, rows - first), first)
    positions = iter(range(depth, per_sequence))
    for _ in range(4):  # graphs are built
        bare.decode(rows, next(positions))
    decode = timed("decode", rows, (bare.decode(rows, next(positions)) for _ in range(steps)))
    profiled(decode, lambda: bare.decode(rows, next(positions)), 5)
    click.echo(f"{gguf.name} on {', '.join(lib.device_names(gpus=True) or lib.device_names(gpus=False))}\n")
    click.echo(f"{show(decode)}\n\n{show(prefill)}")
    if out is not None:
        environment = {name: value for name, value in os.environ.items() if re.match("GGML_|RLLM_", name)}
        record = {"gguf": gguf.name, "environment": environment, "steps": [asdict(decode), asdict(prefill)]}
        out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
