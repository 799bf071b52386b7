"""rllm-bench study"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rllm_bench.commands.carry_out import carry_out
from rllm_bench.commands.options import place_options, take_places
from rllm_bench.run import plan


@click.command("study")
@click.argument("path", metavar="PLAN", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--part", "parts", multiple=True, help="Only this part of the plan; may be repeated.")
@click.option(
    "--budget-s", type=float, help="Begin nothing that would probably last longer; call again to go on."
)
@click.option("--repeats", type=click.IntRange(min=1), help="Instead of the plan's.")
@click.option("--slots", type=click.IntRange(min=1), help="Instead of the plan's.")
@click.option("--threads", type=click.IntRange(min=1), help="Instead of the plan's.")
@click.option("--seed", type=int, help="Instead of the plan's.")
@click.option("--name", help="Name of the run.  [default: the plan's]")
@click.option("--out", type=click.Path(path_type=Path), default=Path("reports"), show_default=True)
@click.option("--dry-run", is_flag=True, help="Print what would be measured, and what fits into the budget.")
@place_options
def command(path: Path, parts: tuple[str, ...], **options: Any) -> None:
    """Measure what PLAN asks, a TOML file; what is done stays done, so that it can be called again.

    A plan has the keys of `matrix --config` for all its parts, a [[part]] for each with keys of its own, most
    important first, and [[goal]]s that its page holds the figures against. `bench/plans` has some.
    """
    places = take_places(options)
    run = {name: options.pop(name) for name in ("name", "out", "budget_s", "dry_run")}
    given = {name: value for name, value in options.items() if value is not None}
    carry_out(
        lambda: plan.study(path, given, parts),
        places,
        parts=parts,
        resume=True,
        continue_on_error=True,
        **run,
    )
