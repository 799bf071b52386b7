"""rllm-bench ceiling"""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from rllm_bench.ceiling.file import Ceiling, CeilingJob, save
from rllm_bench.ceiling.run import CeilingFailed, bandwidth, ceiling
from rllm_bench.commands.options import Numbers
from rllm_bench.figures.words import number
from rllm_bench.report.tables import markdown

_DEFAULTS = CeilingJob(model="")


@click.command("ceiling")
@click.argument("models", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("ceiling.json"),
    show_default=True,
    help="A file, or the folder of a run, whose report then shows it.",
)
@click.option(
    "--batches", type=Numbers(int), default="1,4,8,16", show_default=True, help="Sequences in a batch."
)
@click.option(
    "--prompt-tokens", type=click.IntRange(min=1), default=_DEFAULTS.prompt_tokens, show_default=True
)
@click.option(
    "--output-tokens", type=click.IntRange(min=1), default=_DEFAULTS.output_tokens, show_default=True
)
@click.option("--threads", type=click.IntRange(min=0), default=0, help="0: as many as rllm-serve takes.")
@click.option("--kv-unified", is_flag=True, help="One cache for all sequences.  [default: split]")
@click.option("--gpu-layers", type=int, default=-1, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=_DEFAULTS.batch_size, show_default=True)
@click.option("--ubatch-size", type=click.IntRange(min=1), default=_DEFAULTS.ubatch_size, show_default=True)
def command(models: tuple[Path, ...], out: Path, batches: list[int], **options: int) -> None:
    """Measure the engine alone on MODELS (default: models/*.gguf): the most that a server could reach."""
    chosen = models or tuple(sorted(Path("models").glob("*.gguf")))
    if not chosen:
        raise click.ClickException("no models given, and models/*.gguf is empty")
    memory = bandwidth()
    click.echo(f"memory: {memory[0] / 1e9:.1f} GB/s ({memory[1]})")
    found = []
    for path in chosen:
        job = msgspec.convert({"model": str(path), "batches": batches, **options}, CeilingJob)
        try:
            found.append(ceiling(job, memory))
        except CeilingFailed as error:
            raise click.ClickException(str(error)) from error
    file = out if out.suffix == ".json" else out / "ceiling.json"
    save(file, found)
    click.echo(
        markdown(["model", "prefill", *(f"B={size}" for size in batches)], [_row(one) for one in found])
    )
    click.echo(f"tokens per second; written to {file}")


def _row(one: Ceiling) -> list[str]:
    decode = [number(point.tokens_per_s) for point in one.measured.decode]
    return [Path(one.job.model).name, number(one.measured.prefill_tps), *decode]
