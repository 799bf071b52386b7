"""Builds of llama.cpp's CPU library beside each other: how fast is each, with and without flash attention?

    python -m micro.kernel_speed --gguf models/q4.gguf --build native=LIB --build patched=LIB --rounds 5

LIB is a folder with all of llama.cpp's libraries. Every build is a process of its own, timed in turns at
each depth; the table has medians in tokens per second. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import rllm.backends.llama.lib  # noqa: F401  isort: skip  (before numpy)

from pathlib import Path

import click
from tabulate import tabulate

from rllm.backends.llama.speed import Order
from rllm.backends.options import LlamaOptions
from rllm.tuning.points import Point
from rllm.tuning.race import medians
from rllm.tuning.rigs import ProcessRig

PATIENCE_S = 600.0


@click.command()
@click.option("--gguf", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--build", "builds", multiple=True, required=True, help="NAME=FOLDER")
@click.option("--depth", "depths", multiple=True, type=int, default=(100, 600, 1800), show_default=True)
@click.option("--rows", multiple=True, type=int, default=(1, 8), show_default=True)
@click.option("--prefill", default=256, show_default=True, help="Tokens of a prompt.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--threads", default=0, show_default=True)
def main(
    gguf: Path,
    builds: tuple[str, ...],
    depths: tuple[int, ...],
    rows: tuple[int, ...],
    prefill: int,
    rounds: int,
    threads: int,
) -> None:
    rigs = {
        (name, flash): ProcessRig(
            gguf, LlamaOptions(flash_attn=flash, threads=threads), {"LLAMA_CPP_LIB_PATH": folder}
        )
        for name, _, folder in (build.partition("=") for build in builds)
        for flash in ("on", "off")
    }
    times: dict[tuple[str, str], list[dict[Point, float]]] = {key: [] for key in rigs}
    try:
        for depth in depths:
            for rig in rigs.values():
                rig.ask(Order("open", max(rows), depth), PATIENCE_S)
            for turn in range(rounds):
                for key in sorted(rigs, reverse=turn % 2 == 1):
                    times[key].append(_round(rigs[key], depth, rows, prefill))
                click.echo(f"depth {depth}, round {turn + 1} of {rounds}", err=True)
    finally:
        for rig in rigs.values():
            rig.close()
    points = sorted({point for each in times.values() for taken in each for point in taken})
    table = []
    for (name, flash), taken in times.items():
        seconds = medians(taken)
        table.append([name, flash, *(f"{point.tokens / seconds[point]:,.0f}" for point in points)])
    click.echo(
        tabulate(table, ["build", "flash attention", *map(str, points)], "pipe", disable_numparse=True)
    )


def _round(rig: ProcessRig, depth: int, rows: tuple[int, ...], prefill: int) -> dict[Point, float]:
    """Seconds of a step at each point of this depth."""
    steps = 4
    found = {
        Point(depth, count): rig.ask(Order("decode", count, steps), PATIENCE_S) / steps for count in rows
    }
    size = min(prefill, depth)
    found[Point(depth, prefill=size)] = rig.ask(Order("prefill", 1, size), PATIENCE_S)
    return found


if __name__ == "__main__":
    main()
