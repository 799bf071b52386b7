"""Run chaos scenarios against real server processes and write the report: ``scripts/chaos --help``."""

from __future__ import annotations

import asyncio
import gc
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click
import orjson

from tests.chaos import crash, fuzz, ladder, overload, report, rolling, rude, servers, soak
from tests.chaos.circumstances import ROOT, observed
from tests.chaos.nginx import find
from tests.chaos.result import Result
from tests.tinymodel import write_tiny_model

Start = Callable[[], Coroutine[Any, Any, Result]]
LOGS = ROOT / ".cache/chaos"
"""The servers' logs, one folder per scenario; of the last run only."""
NAMES = ("crash", "hang", "overload", "rude", "rolling", "nginx", "fuzz", "ladder", "soak")
"""In the order of the report."""


def scenarios(
    models: Path, tiny: Path, *, small: bool, minutes: float, peer_binary: Path | None, nginx: Path | None
) -> dict[str, Start]:
    """Where only HTTP and the pool are under test, a model of 400 kB keeps the arithmetic out of the way."""
    q4 = models / "q4.gguf"
    variants = (models / "f16.gguf", models / "q8.gguf", q4)
    stop = signal.SIGSTOP
    if small:
        short = rolling.RollingPlan(tiny, restarts=2, pause_s=1)
        return {
            "crash": lambda: crash.run(crash.CrashPlan(tiny, rounds=2, max_tokens=200)),
            "hang": lambda: crash.run(crash.CrashPlan(tiny, stop, rounds=1, max_tokens=200)),
            "overload": lambda: overload.run(
                overload.OverloadPlan(q4, duration_s=15, measure_s=10, peer_binary=peer_binary)
            ),
            "rude": lambda: rude.run(
                rude.RudePlan(tiny, leavers=150, readers=6, slow_timeout_s=2, threads=1)
            ),
            "rolling": lambda: rolling.run(short),
            **({"nginx": lambda: rolling.run_nginx(short, nginx)} if nginx else {}),
            "fuzz": lambda: fuzz.run(fuzz.FuzzPlan(tiny, requests=1000, threads=1)),
            "soak": lambda: soak.run(soak.SoakPlan(q4, duration_s=60, sample_s=1, most_mib_per_hour=1e9)),
            "ladder": lambda: ladder.run(ladder.LadderPlan(_copies(tiny), up_s=20, ctx=1024, max_tokens=200)),
        }
    return {
        "crash": lambda: crash.run(crash.CrashPlan(q4)),
        "hang": lambda: crash.run(crash.CrashPlan(q4, stop)),
        "overload": lambda: overload.run(overload.OverloadPlan(q4, peer_binary=peer_binary)),
        "rude": lambda: rude.run(rude.RudePlan(tiny, threads=1)),
        "rolling": lambda: rolling.run(rolling.RollingPlan(q4)),
        **({"nginx": lambda: rolling.run_nginx(rolling.RollingPlan(q4), nginx)} if nginx else {}),
        "fuzz": lambda: fuzz.run(fuzz.FuzzPlan(tiny, threads=1)),
        "ladder": lambda: ladder.run(ladder.LadderPlan(variants)),
        "soak": lambda: soak.run(soak.SoakPlan(q4, duration_s=60 * minutes)),
    }


def _copies(tiny: Path) -> tuple[Path, ...]:
    """Three models to be each other's variants."""
    paths = tuple(tiny.with_name(f"{name}.gguf") for name in ("big", "middle", "small"))
    for path in paths:
        path.write_bytes(tiny.read_bytes())
    return paths


def _run(name: str, start: Start, command: str) -> Result:
    logs = LOGS / name
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    os.environ[servers.LOGS] = str(logs)
    click.echo(f"{name} ... load average {os.getloadavg()[0]:.2f}, ", nl=False)
    with observed(command) as facts:
        result = asyncio.run(start())
    result.circumstances = facts
    if not result.kept:
        facts.errors = _errors(logs)
    click.echo(
        f"{'kept' if result.kept else 'BROKEN'}, {facts.elapsed_s:.0f} s, "
        f"{facts.others_percent:g} % of the processor used by others"
    )
    for check in result.checks:
        click.echo(f"  {'ok ' if check.kept else 'NO '} {check.promise}: {check.measured}")
    return result


def _errors(logs: Path, most: int = 10) -> list[str]:
    """What the servers had to complain about, the first of it."""
    found: list[str] = []
    for path in sorted(logs.iterdir(), key=lambda path: path.stat().st_mtime):
        for line in path.read_bytes().splitlines():
            if b'"level":"error"' in line or b'"level":"warning"' in line:
                event = orjson.loads(line)
                found.append(" ".join(f"{key}={value}" for key, value in event.items())[:300])
    return found[:most]


@click.command(context_settings={"max_content_width": 100})
@click.option(
    "--report",
    "folder",
    type=click.Path(path_type=Path),
    help="Where results are kept and the report is made of all that are there.  [reports/chaos; with --small "
    ".cache/chaos-small]",
)
@click.option("--only", multiple=True, help="A scenario by name; may be repeated.  [all]")
@click.option("--small", is_flag=True, help="Minutes instead of an hour, mostly on a tiny random model.")
@click.option("--soak-minutes", default=30.0, show_default=True)
@click.option("--models", type=click.Path(path_type=Path), default=ROOT / "models", show_default=True)
@click.option(
    "--llama-server", "peer_binary", type=click.Path(path_type=Path), help="Binary; default: xllamacpp's."
)
@click.option("--nginx", type=click.Path(path_type=Path), help="Binary; default: the one on the PATH.")
def main(
    folder: Path | None,
    only: tuple[str, ...],
    small: bool,
    soak_minutes: float,
    models: Path,
    peer_binary: Path | None,
    nginx: Path | None,
) -> None:
    folder = folder or ROOT / (".cache/chaos-small" if small else "reports/chaos")
    command = shlex.join(["scripts/chaos", *sys.argv[1:]])
    gc.collect()
    gc.freeze()  # matplotlib and its friends: without it a full collection stops all clients for 0.1 s
    all_kept = True
    with tempfile.TemporaryDirectory() as temporary:
        tiny = write_tiny_model(Path(temporary) / "tiny.gguf")
        known = scenarios(
            models, tiny, small=small, minutes=soak_minutes, peer_binary=peer_binary, nginx=find(nginx)
        )
        if "nginx" not in known:
            click.echo("nginx ... not installed here: left out")
        if unknown := set(only) - known.keys():
            raise click.UsageError(f"no scenario {min(unknown)!r}; there is {', '.join(known)}")
        for name in only or known:
            result = _run(name, known[name], command)
            result.save(folder)
            report.write(folder, NAMES)
            all_kept = all_kept and result.kept
    click.echo(f"report: {folder / 'report.md'}    the servers' logs: {LOGS}")
    sys.exit(not all_kept)


if __name__ == "__main__":
    main()
