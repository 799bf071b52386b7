"""rllm-bench index"""

from __future__ import annotations

from pathlib import Path

import click

from rllm_bench.commands.options import ROOT


@click.command("index")
@click.option("--check", is_flag=True, help="Write nothing; fail where the page is not what it should be.")
@ROOT
def command(check: bool, root: Path) -> None:
    """Write reports/README.md: every report with its question and its answer in a line."""
    from rllm_bench.figures.keys import UnknownFigure
    from rllm_bench.report.index import BadIndex, render

    page = root / "reports" / "README.md"
    try:
        text = render(root)
    except (BadIndex, UnknownFigure, ValueError) as error:
        raise click.ClickException(str(error)) from error
    if not check:
        page.write_text(text)
    elif not page.exists() or page.read_text() != text:
        raise click.ClickException(f"{page} is not what index.toml and the records say: run rllm-bench index")
