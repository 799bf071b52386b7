"""Builds of llama.cpp's CPU library beside each other: are they exact?

    python -m micro.kernels --gguf models/f16.gguf --build native=LIB --build patched=LIB

LIB is a folder with all of llama.cpp's libraries (as LLAMA_CPP_LIB_PATH names it). Text is computed row by
row, by each build with and without flash attention, in processes of their own; the KL divergence of their
logits is from those of the first build without. Judge with F16 weights: any change of path moves a quantized
model by its own noise.
"""

from __future__ import annotations

from rllm.backends.llama.batch import Batch  # isort: skip  (before numpy)

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
from tabulate import tabulate

from rllm.backends.llama.context import Context, ContextOptions
from rllm.backends.llama.lib import api
from rllm.backends.llama.model import Model
from rllm.backends.llama.vocabulary import load_vocabulary

TEXT = Path(__file__).parents[1] / "rllm_bench" / "quality" / "data" / "wiki.test.raw"


@click.command()
@click.option("--gguf", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--build", "builds", multiple=True, required=True, help="NAME=FOLDER, the reference first.")
@click.option("--tokens", default=1024, show_default=True, help="Of the text, one context.")
@click.option("--threads", default=0, show_default=True)
@click.option("--child", nargs=2, hidden=True)
def main(
    gguf: Path, builds: tuple[str, ...], tokens: int, threads: int, child: tuple[str, str] | None
) -> None:
    if child:
        np.save(child[1], _logits(gguf, child[0], tokens, threads))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        reference: np.ndarray | None = None
        for build in builds:
            name, _, libraries = build.partition("=")
            for flash in ("off", "on"):
                out = Path(folder) / "logits.npy"
                options = ["--gguf", str(gguf), "--tokens", str(tokens), "--threads", str(threads)]
                command = [sys.executable, __file__, *options, "--build", build, "--child", flash, str(out)]
                env = {**os.environ, "LLAMA_CPP_LIB_PATH": str(Path(libraries).resolve())}
                subprocess.run(command, env=env, check=True)
                logits = np.load(out)
                reference = logits if reference is None else reference
                rows.append([name, flash, *_distance(reference, logits)])
    head = ["build", "flash attention", "KL divergence", "largest", "same top token"]
    print(tabulate(rows, head, "pipe", disable_numparse=True))


def _distance(reference: np.ndarray, logits: np.ndarray) -> tuple[str, str, str]:
    """Mean and largest KL divergence in nats over the rows, (positions, vocabulary), and the share of rows
    with the same most likely token."""
    p, q = _log_softmax(reference), _log_softmax(logits)
    kld = (np.exp(p) * (p - q)).sum(axis=1)
    same = (reference.argmax(axis=1) == logits.argmax(axis=1)).mean()
    return f"{kld.mean():.7f}", f"{kld.max():.6f}", f"{same:.2%}"


def _log_softmax(rows: np.ndarray) -> np.ndarray:
    shifted = rows.astype(np.float64) - rows.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _logits(gguf: Path, flash: str, count: int, threads: int) -> np.ndarray:
    vocabulary = load_vocabulary(gguf)
    text = TEXT.read_text(encoding="utf-8")[: 20 * count]
    tokens = vocabulary.tokenize(text, add_special=True, parse_special=False)[:count]
    options = ContextOptions(
        num_cells=count, num_sequences=1, batch_size=1, ubatch_size=1, flash_attn=flash, threads=threads
    )
    model = Model(gguf)
    context = Context(model, options)
    batch = Batch(1, 1)
    rows = np.empty((len(tokens), model.vocab_size), np.float32)
    for position, token in enumerate(tokens):
        batch.clear()
        batch.add(0, [token], position, outputs=1)
        if context.decode(batch) != 0:
            raise click.ClickException("llama_decode failed")
        rows[position] = np.ctypeslib.as_array(api.llama_get_logits(context.pointer), (model.vocab_size,))
    context.close()
    model.close()
    return rows


if __name__ == "__main__":
    main()
