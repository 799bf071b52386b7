"""Deliberately broken copies of a model file, to see that the gate catches them.

python -m rllm_bench.quality.faults zero-tensor MODEL.gguf BROKEN.gguf --tensor blk.10.ffn_down.weight
python -m rllm_bench.quality.faults rope-base MODEL.gguf BROKEN.gguf --factor 0.1
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click
from gguf import GGUFReader


def zero_tensor(source: Path, target: Path, name: str) -> None:
    """Copy ``source``; in the copy every byte of one tensor is 0, which all types decode to zeros."""
    shutil.copyfile(source, target)
    reader = GGUFReader(target, "r+")
    found = [tensor for tensor in reader.tensors if tensor.name == name]
    if not found:
        raise ValueError(f"{source} has no tensor {name!r}")
    found[0].data[:] = 0
    reader.data.flush()


def scale_rope_base(source: Path, target: Path, factor: float) -> None:
    """Copy ``source``; the copy turns its positions at another rate, as a wrong conversion would."""
    shutil.copyfile(source, target)
    reader = GGUFReader(target, "r+")
    fields = [field for key, field in reader.fields.items() if key.endswith(".rope.freq_base")]
    if not fields:
        raise ValueError(f"{source} does not state its rope base")
    fields[0].parts[-1][0] *= factor
    reader.data.flush()


@click.group()
def main() -> None:
    """Break a copy of a model."""


_paths = (
    click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path)),
    click.argument("target", type=click.Path(dir_okay=False, path_type=Path)),
)


@main.command("zero-tensor")
@_paths[0]
@_paths[1]
@click.option("--tensor", default="blk.10.ffn_down.weight", show_default=True)
def zero_command(source: Path, target: Path, tensor: str) -> None:
    """Zero one tensor."""
    zero_tensor(source, target, tensor)


@main.command("rope-base")
@_paths[0]
@_paths[1]
@click.option("--factor", default=0.1, show_default=True)
def rope_command(source: Path, target: Path, factor: float) -> None:
    """Multiply the base frequency of the rotary positions."""
    scale_rope_base(source, target, factor)


if __name__ == "__main__":
    main()
