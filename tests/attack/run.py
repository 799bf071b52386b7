"""Play attacks against real servers and write the report: ``scripts/attack --help``."""

from __future__ import annotations

import asyncio
import shlex
import statistics
import sys
import tempfile
import traceback
from dataclasses import replace
from pathlib import Path

import aiohttp
import click

from tests.attack import report
from tests.attack.arena import Arena
from tests.attack.case import Case, Outcome, all_cases
from tests.attack.record import Record
from tests.chaos.circumstances import ROOT, observed
from tests.tinymodel import write_tiny_model

LIMIT_S = 300.0
"""Of one case: one that hangs says so."""


async def play(case: Case, arena: Arena, limit_s: float = LIMIT_S) -> Outcome:
    """Never raises: an attack that breaks its own scene is a broken promise too."""
    try:
        async with asyncio.timeout(limit_s):
            return await case.play(arena)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return Outcome(False, f"{type(error).__name__} at {where}: {str(error)[:300]}")


def summary(outcomes: list[Outcome]) -> Outcome:
    """Of several runs: kept if most were, and the median of every figure."""
    kept = sum(outcome.kept for outcome in outcomes) * 2 > len(outcomes)
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.figures)
    figures = {
        name: statistics.median(o.figures[name] for o in outcomes if name in o.figures) for name in names
    }
    telling = [outcome for outcome in outcomes if outcome.kept == kept]
    return Outcome(kept, telling[len(telling) // 2].found, figures)


async def _runs(case: Case, arena: Arena, runs: int) -> list[Outcome]:
    outcomes = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http:
        for _ in range(runs):
            with tempfile.TemporaryDirectory(prefix="attack-") as folder:
                outcomes.append(await play(case, replace(arena, http=http, folder=Path(folder))))
    return outcomes


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--report", "folder", type=click.Path(path_type=Path), default=ROOT / ".cache/attack", show_default=True
)
@click.option("--only", multiple=True, help="A case by name, or an entry by number; may be repeated.  [all]")
@click.option("--runs", default=1, show_default=True, help="Of each case; figures are medians.")
@click.option("--tiny", is_flag=True, help="The tiny model for all, which says nothing about gaps.")
@click.option("--model", type=click.Path(path_type=Path), default=ROOT / "models/q4.gguf", show_default=True)
@click.option(
    "--before",
    "other",
    type=click.Path(path_type=Path, exists=True),
    help="Attack the rllm of this checkout instead; the report shows it as what happened before.",
)
def main(folder: Path, only: tuple[str, ...], runs: int, tiny: bool, model: Path, other: Path | None) -> None:
    command = shlex.join(["scripts/attack", *sys.argv[1:]])
    chosen = [case for case in all_cases() if not only or {case.name, str(case.entry)} & {*only}]
    if not chosen:
        raise click.UsageError(f"no such case; there is {', '.join(case.name for case in all_cases())}")
    kept = True
    with tempfile.TemporaryDirectory() as temporary:
        small = write_tiny_model(Path(temporary) / "tiny.gguf")
        for case in chosen:
            on = model.resolve() if case.real and not tiny else small
            arena = Arena(None, on, Path(temporary), (other or ROOT).resolve() / "app")  # type: ignore[arg-type] # set for each case
            with observed(command, other or ROOT) as facts:
                outcomes = asyncio.run(_runs(case, arena, runs))
            outcome = summary(outcomes)
            Record(case.name, on.name, outcome, outcomes, facts).save(folder, before=other is not None)
            report.write(folder)
            kept = kept and outcome.kept
            click.echo(f"{'ok ' if outcome.kept else 'NO '} {case.entry:>2} {case.name}: {outcome.found}")
    click.echo(f"report: {folder / 'report.md'}")
    sys.exit(not kept)


if __name__ == "__main__":
    main()
