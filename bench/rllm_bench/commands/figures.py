"""rllm-bench figures"""

from __future__ import annotations

from pathlib import Path

import click

from rllm_bench.commands.options import ROOT


@click.command("figures")
@click.argument("pages", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--write", is_flag=True, help="Fill the figures in; without it they are checked.")
@ROOT
def command(pages: tuple[Path, ...], write: bool, root: Path) -> None:
    """Compute the figures of PAGES anew from their records, by the keys beside them.

    Without PAGES, those that docs/figures.toml names.
    """
    from rllm_bench.figures.keys import UnknownFigure
    from rllm_bench.figures.pages import check, fill
    from rllm_bench.figures.sources import Catalog

    catalog = Catalog(root)
    found = list(pages) or [page for entry in catalog.pages for page in _expand(entry)]
    if write:
        for page in found:
            try:
                page.write_text(fill(page.read_text(), catalog))
            except UnknownFigure as wrong:
                raise click.ClickException(f"{page}: {wrong}") from wrong
        return
    problems = [wrong for page in found for wrong in check(page, catalog)]
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        raise click.ClickException(f"{len(problems)} figures do not follow from their records")


def _expand(entry: Path) -> list[Path]:
    return sorted(entry.glob("*.md")) if entry.is_dir() else [entry]
