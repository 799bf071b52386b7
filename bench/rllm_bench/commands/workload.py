"""rllm-bench workload"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from rllm_bench import scenarios
from rllm_bench.commands.options import RUN
from rllm_bench.load import arrivals
from rllm_bench.load.prompts import Unit, digest, save
from rllm_bench.records import vocabulary
from rllm_bench.records.cells import Load, WorkloadSpec
from rllm_bench.records.store import Store


@click.command("workload")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--kind",
    type=click.Choice([name for name in scenarios.known() if name != "file"]),
    default="unique",
    show_default=True,
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Prompts; with multi-turn, conversations.",
)
@click.option("--prompt-tokens", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--output-tokens", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--prefix-tokens", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--prefix-groups", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--turns", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--rate", type=float, help="Give each prompt a time of arrival at this rate.")
@click.option(
    "--arrival", type=click.Choice(["poisson", "constant", "gamma"]), default="poisson", show_default=True
)
@click.option("--burstiness", type=float, default=1.0, show_default=True)
@click.option(
    "--model",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="GGUF whose words are used; without it, text only.",
)
@click.option(
    "--trace",
    type=RUN,
    help="Take the prompts and times of this recorded run instead.",
)
@click.option("--cell", help="With --trace: which cell.  [default: the first]")
def command(out: Path, trace: Path | None, cell: str | None, **options: Any) -> None:
    """Write prompts to OUT (JSONL), for `matrix --workload file --prompts-file OUT`.

    With times of arrival, `--arrival trace` replays them.
    """
    units = _recorded(trace, cell) if trace else _synthetic(options)
    save(out, units)
    click.echo(f"{out}: {sum(map(len, units))} prompts, hash {digest(units)}")


def _synthetic(options: dict[str, Any]) -> list[Unit]:
    model, count = options.pop("model"), options.pop("count")
    rate, arrival, burstiness = options.pop("rate"), options.pop("arrival"), options.pop("burstiness")
    spec = msgspec.convert(options, WorkloadSpec)
    if problem := scenarios.find(spec.kind).problem(spec):
        raise click.ClickException(f"{spec.kind} {problem}")
    words = vocabulary.from_gguf(model) if model else vocabulary.plain_words()
    units = scenarios.workload(spec, words).units(count)
    if rate is None:
        return units
    load = msgspec.convert({"mode": "open", "rate": rate, "arrival": arrival, "burstiness": burstiness}, Load)
    times = arrivals.schedule(load, count, spec.seed)
    return [_at(unit, float(np.round(moment, 6))) for unit, moment in zip(units, times, strict=True)]


def _recorded(folder: Path, cell: str | None) -> list[Unit]:
    """What one cell of a run asked, at the times it asked it."""
    store = Store(folder)
    run = store.run()
    spec = next((s for s in run.cells if cell is None or s.id == cell), None)
    if spec is None or not store.is_done(spec):
        raise click.ClickException(
            f"{folder} has no finished cell {cell}; its cells: {', '.join(s.id for s in run.cells)}"
        )
    data, workload = store.load(spec), scenarios.workload(spec.workload, store.vocabulary())
    firsts = sorted((r.scheduled_us / 1e6, r.index) for r in data.requests if r.turn == 0)
    return [_at(workload.unit(index), moment) for moment, index in firsts]


def _at(unit: Unit, moment: float) -> Unit:
    first = unit[0]
    return [msgspec.structs.replace(first, at_s=moment), *unit[1:]]
