"""An Observer that prints lines."""

from __future__ import annotations

import click

from rllm_bench.records.cells import CellSpec


class Plain:
    def cell_started(self, spec: CellSpec) -> None:
        click.echo(f"  {spec.id}: {spec.num_requests} requests", err=True)

    def cell_progress(self, spec: CellSpec, requests: int) -> None: ...

    def cell_finished(self, spec: CellSpec, error: str | None) -> None:
        if error is not None:
            click.echo(f"  {spec.id}: {printable(error)}", err=True)

    def note(self, text: str) -> None:
        click.echo(printable(text), err=True)


def printable(text: str) -> str:
    """Of a server that is measured: control characters are shown, not sent to the terminal."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text
    )
