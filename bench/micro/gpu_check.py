"""Does llama.cpp compute on the GPU here? Loads a model, prefills, decodes, and says where its buffers are.

    python -m micro.gpu_check --gguf models/q4.gguf [--steps 64] [--slots 4]

Exit status 1 where nothing is on a GPU. `scripts/build-cuda` ends with it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from rllm.backends.llama import lib  # before numpy
from rllm.backends.llama.backend import LlamaBackend
from rllm.backends.options import LlamaOptions
from rllm.engine.port import Chunk, OpenSampler, Plan
from rllm.engine.types import SamplingParams

_PROMPT = tuple(range(100, 228))
_GREEDY = SamplingParams(temperature=0.0)


def decode(backend: LlamaBackend, slots: int, steps: int) -> tuple[float, float]:
    """Seconds of the prefill and of the steps after it, with every slot busy."""
    began = time.perf_counter()
    opened = tuple(OpenSampler(seq, _GREEDY, _PROMPT) for seq in range(slots))
    chunks = tuple(Chunk(seq, _PROMPT, 0, True) for seq in range(slots))
    tokens = backend.execute(Plan(opened, chunks)).tokens
    prefilled = time.perf_counter()
    for step in range(steps):
        at = len(_PROMPT) + step
        chunks = tuple(Chunk(seq, drawn, at, True) for seq, drawn in sorted(tokens.items()))
        tokens = backend.execute(Plan(chunks=chunks)).tokens
    return prefilled - began, time.perf_counter() - prefilled


@click.command()
@click.option("--gguf", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--steps", default=64, show_default=True)
@click.option("--slots", default=4, show_default=True)
def main(gguf: Path, steps: int, slots: int) -> None:
    click.echo(f"llama.cpp: {'CUDA' if lib.is_cuda_build() else 'no CUDA'} build")
    gpus = lib.device_names(gpus=True)
    click.echo(f"GPUs that it sees: {', '.join(gpus) or 'none'}")
    backend = LlamaBackend(gguf, LlamaOptions(slots=slots, ctx_per_slot=len(_PROMPT) + steps + 1))
    try:
        info = backend.info
        prefill_s, decode_s = decode(backend, slots, steps)
    finally:
        backend.close()
    for name, size in info.buffers.items():
        click.echo(f"  {name}: {size / 2**20:.1f} MiB")
    click.echo(f"{info.description} on {info.device}, loaded in {info.load_s:.1f} s")
    click.echo(
        f"prefill {slots * len(_PROMPT) / prefill_s:.0f} tok/s, decode {slots * steps / decode_s:.0f} tok/s"
    )
    on_gpu = any(name.endswith(" model") and "CPU" not in name for name in info.buffers)
    if not gpus or not on_gpu:
        click.echo("the model is not on a GPU", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
