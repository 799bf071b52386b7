"""Run chaos scenarios against real server processes and write the report: ``scripts/chaos --help``."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from tests.chaos import crash, fuzz, ladder, overload, report, rolling, rude, soak
from tests.chaos.result import Result
from tests.tinymodel import write_tiny_model

ROOT = Path(__file__).parents[2]
Start = Callable[[], Coroutine[Any, Any, Result]]


def scenarios(
    models: Path, tiny: Path, *, small: bool, minutes: float, peer_binary: Path | None
) -> dict[str, Start]:
    """Where only HTTP and the pool are under test, a model of 400 kB keeps the arithmetic out of the way."""
    q4 = models / "q4.gguf"
    variants = (models / "f16.gguf", models / "q8.gguf", q4)
    stop = signal.SIGSTOP
    if small:
        return {
            "crash": lambda: crash.run(crash.CrashPlan(tiny, rounds=2, max_tokens=200, threads=1)),
            "hang": lambda: crash.run(crash.CrashPlan(tiny, stop, rounds=1, max_tokens=200, threads=1)),
            "overload": lambda: overload.run(
                overload.OverloadPlan(q4, duration_s=15, measure_s=10, peer_binary=peer_binary)
            ),
            "rude": lambda: rude.run(
                rude.RudePlan(tiny, leavers=150, readers=6, slow_timeout_s=2, threads=1)
            ),
            "rolling": lambda: rolling.run(rolling.RollingPlan(tiny, restarts=2, pause_s=1, threads=1)),
            "fuzz": lambda: fuzz.run(fuzz.FuzzPlan(tiny, requests=1000, threads=1)),
            "soak": lambda: soak.run(soak.SoakPlan(q4, duration_s=60, sample_s=1, most_mib_per_hour=1e9)),
            "ladder": lambda: ladder.run(ladder.LadderPlan(variants, up_s=20)),
        }
    return {
        "crash": lambda: crash.run(crash.CrashPlan(q4)),
        "hang": lambda: crash.run(crash.CrashPlan(q4, stop, rounds=4)),
        "overload": lambda: overload.run(overload.OverloadPlan(q4, peer_binary=peer_binary)),
        "rude": lambda: rude.run(rude.RudePlan(q4)),
        "rolling": lambda: rolling.run(rolling.RollingPlan(q4)),
        "fuzz": lambda: fuzz.run(fuzz.FuzzPlan(tiny, threads=1)),
        "ladder": lambda: ladder.run(ladder.LadderPlan(variants)),
        "soak": lambda: soak.run(soak.SoakPlan(q4, duration_s=60 * minutes)),
    }


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--report", "folder", type=click.Path(path_type=Path), default=ROOT / "reports/chaos", show_default=True
)
@click.option("--only", multiple=True, help="A scenario by name; may be repeated.  [all]")
@click.option("--small", is_flag=True, help="Minutes instead of an hour, mostly on a tiny random model.")
@click.option("--soak-minutes", default=30.0, show_default=True)
@click.option("--models", type=click.Path(path_type=Path), default=ROOT / "models", show_default=True)
@click.option(
    "--llama-server", "peer_binary", type=click.Path(path_type=Path), help="Binary; default: xllamacpp's."
)
def main(
    folder: Path,
    only: tuple[str, ...],
    small: bool,
    soak_minutes: float,
    models: Path,
    peer_binary: Path | None,
) -> None:
    facts = report.machine()
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        tiny = write_tiny_model(Path(temporary) / "tiny.gguf")
        known = scenarios(models, tiny, small=small, minutes=soak_minutes, peer_binary=peer_binary)
        if unknown := set(only) - known.keys():
            raise click.UsageError(f"no scenario {min(unknown)!r}; there is {', '.join(known)}")
        for name in only or known:
            began = time.monotonic()
            click.echo(f"{name} ... ", nl=False)
            result = asyncio.run(known[name]())
            results.append(result)
            click.echo(f"{'kept' if result.kept else 'BROKEN'}, {time.monotonic() - began:.0f} s")
            for check in result.checks:
                click.echo(f"  {'ok ' if check.kept else 'NO '} {check.promise}: {check.measured}")
            report.write(results, folder, shlex.join(["scripts/chaos", *sys.argv[1:]]), facts)
    click.echo(f"report: {folder / 'report.md'}")
    sys.exit(not all(result.kept for result in results))


if __name__ == "__main__":
    main()
