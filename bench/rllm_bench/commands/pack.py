"""rllm-bench pack"""

from __future__ import annotations

from pathlib import Path

import click


@click.command("pack")
@click.argument(
    "folders",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
def command(folders: tuple[Path, ...]) -> None:
    """Put the records of reports into one file each, records.tar.zst.

    Every command reads them there as if they still lay in FOLDERS. Pages and pictures stay, and links to what
    is packed lead to the archive. `tar --zstd -xf records.tar.zst` undoes it.
    """
    from rllm_bench.report.pack import pack

    for folder in folders:
        if not (folder / "report.md").is_file():
            raise click.ClickException(f"{folder} has no report.md: not the folder of a report")
        click.echo(f"packed: {pack(folder)}")
