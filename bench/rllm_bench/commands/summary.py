"""rllm-bench summary"""

from __future__ import annotations

from pathlib import Path

import click

from rllm_bench.commands.options import ROOT


@click.command("summary")
@ROOT
@click.option("--print", "to_console", is_flag=True, help="Print the English page, and write nothing.")
def command(root: Path, to_console: bool) -> None:
    """Write reports/SUMMARY.md and SUMMARY.zh-CN.md: the answer on one page, from the records.

    Every figure carries the key of its record, so that `rllm-bench figures` can check it.
    """
    import msgspec

    from rllm_bench.figures.keys import UnknownFigure
    from rllm_bench.report.onepage.write import printed, write

    try:
        if to_console:
            click.echo(printed(root))
            return
        for path in write(root):
            click.echo(f"wrote {path}")
    except (UnknownFigure, msgspec.ValidationError, FileNotFoundError) as error:
        raise click.ClickException(str(error)) from error
