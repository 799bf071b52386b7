"""rllm-bench report"""

from __future__ import annotations

from pathlib import Path

import click

from rllm_bench.commands.options import RUN


@click.command("report")
@click.argument("runs", nargs=-1, required=True, type=RUN)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Where it goes.  [default: the first run's folder]"
)
@click.option(
    "--with",
    "extra",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A ceiling.json or quality.json from elsewhere.",
)
@click.option(
    "--export", "exports", is_flag=True, help="Also summary.csv, and vllm/ in the keys of `vllm bench serve`."
)
def command(runs: tuple[Path, ...], out: Path | None, extra: tuple[Path, ...], exports: bool) -> None:
    """Render any number of runs into one report, from their raw records."""
    from rllm_bench.report.export import export
    from rllm_bench.report.page import render

    if out is None and not runs[0].is_dir():
        raise click.UsageError(f"{runs[0]} is in an archive: say with --out where the report goes")
    click.echo(f"report: {render(list(runs), out or runs[0], list(extra), click.echo)}")
    if exports:
        export(runs, out or runs[0])
