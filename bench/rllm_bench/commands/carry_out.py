"""What every command that measures does with its plan: show it, or carry it out and write its page."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import msgspec

from rllm_bench.records.runs import RunRecord
from rllm_bench.records.store import Store
from rllm_bench.run import outcome
from rllm_bench.run.budget import Pace
from rllm_bench.run.matrix import Prepared, execute, prepare
from rllm_bench.run.plan import Plan, PlanError
from rllm_bench.run.progress import Bar
from rllm_bench.run.runner import CellFailed
from rllm_bench.scenarios import UnknownScenario
from rllm_bench.targets.catalog import Places, UnknownTarget

_REFUSED = (PlanError, UnknownTarget, UnknownScenario, CellFailed, KeyError, msgspec.ValidationError)


def carry_out(
    planned: Callable[[], Plan],
    places: Places,
    *,
    out: Path,
    name: str | None = None,
    dry_run: bool = False,
    resume: bool = False,
    continue_on_error: bool = False,
    generators: int | None = None,
    no_report: bool = False,
    budget_s: float | None = None,
    parts: Sequence[str] = (),
) -> None:
    """
    Raises:
        click.ClickException: there is no such plan, or nothing of it was answered.
    """
    deadline = None if budget_s is None else time.monotonic() + budget_s
    try:
        prepared = prepare(planned(), places, hash_models=not dry_run)
        if name:
            prepared = _named(prepared, name)
        if dry_run:
            show_plan(prepared.run, budget_s)
            return
        folder = out / prepared.run.name
        with Bar(Store(folder), prepared.run) as bar:
            store = execute(
                prepared,
                folder,
                bar,
                resume=resume,
                continue_on_error=continue_on_error,
                generators=generators,
                deadline=deadline,
                parts=parts,
            )
    except _REFUSED as error:
        raise click.ClickException(str(error)) from error
    conclude(store, prepared, no_report=no_report)


def _named(prepared: Prepared, name: str) -> Prepared:
    return Prepared(msgspec.structs.replace(prepared.run, name=name), prepared.targets, prepared.words)


def conclude(store: Store, prepared: Prepared, *, no_report: bool) -> None:
    """The page, its answer, and the last lines, where they are seen; the exit status is 1 when a cell has
    not one good answer."""
    store.pack()
    if no_report:
        click.echo(f"measured: {store.folder}")
    else:
        from rllm_bench.report.page import render  # matplotlib is needed for this alone

        click.echo(f"report: {render([store.folder], store.folder, say=click.echo)}")
    for line in outcome.missing(store.run()):
        click.echo(line, err=True)
    for line in prepared.left_out:
        click.echo(f"left out: {line}", err=True)
    if failed := outcome.unanswered(store):
        raise click.ClickException("\n".join(failed))


def show_plan(run: RunRecord, budget_s: float | None = None) -> None:
    """The cells by part, with a guess of their time, and which still fit."""
    for subject in run.subjects:
        click.echo(f"{subject.name}: {subject.missing or subject.version}")
    settings, pace, spent = run.settings, Pace(run), 0.0
    click.echo(
        f"every server: {settings.slots} slots of {settings.ctx_per_slot} tokens, unless a part says else"
    )
    for part in dict.fromkeys(spec.part for spec in run.cells):
        own = [spec for spec in run.cells if spec.part == part]
        needed = pace.total_s(msgspec.structs.replace(run, cells=own))
        spent += needed
        fits = "" if budget_s is None or spent <= budget_s else ", does not fit into the budget as a whole"
        if part:
            click.echo(f"{part}: about {needed:.0f} s, {spent:.0f} s up to here{fits}")
        for spec in own:
            click.echo(f"  {spec.id}: {spec.num_requests} requests after {spec.num_warmups} to warm up")
    click.echo(f"{len(run.cells)} cells; very roughly {spent / 60:.0f} minutes with the servers' starts")
