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
            click.echo(f"  {spec.id}: {error}", err=True)

    def note(self, text: str) -> None:
        click.echo(text, err=True)
