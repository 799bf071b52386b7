"""rllm-bench compare"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from rllm_bench.commands.options import RUN, Names
from rllm_bench.figures.compare import METRICS, Comparison, differences, pairs
from rllm_bench.figures.summary import summarize
from rllm_bench.figures.words import number
from rllm_bench.records.store import Store
from rllm_bench.report.tables import markdown


@click.command("compare")
@click.argument("old", type=RUN)
@click.argument("new", type=RUN)
@click.option("--metrics", type=Names(), default=",".join(METRICS), show_default=True)
@click.option("--fail-on-regression", is_flag=True, help="Exit 1 when anything is significantly worse.")
def command(old: Path, new: Path, metrics: list[str], fail_on_regression: bool) -> None:
    """Is NEW better than OLD? Both are folders of runs; loads that both have are compared."""
    fresh, base = summarize([Store(new)]), summarize([Store(old)])
    found = list(pairs(fresh, base, tuple(metrics)))
    if not found:
        raise click.ClickException("the two runs have no subject and load in common")
    for line in differences(fresh, base):
        click.echo(click.style(f"**Not the same: {line}.**\n", bold=True))
    click.echo(markdown(["load", "subject", "figure", "old", "new", "verdict"], [_row(one) for one in found]))
    worse = [one for one in found if one.verdict == "worse"]
    if all(one.verdict == "unknown" for one in found):
        click.echo(
            "\nindicative runs: without three repeats there is no verdict, and no regression can be found"
        )
    if worse:
        click.echo(f"\n{len(worse)} figures are significantly worse")
        if fail_on_regression:
            sys.exit(1)


def _row(one: Comparison) -> list[str]:
    subject = one.new if one.new == one.old else f"{one.new} against {one.old}"
    return [one.group, subject, one.metric, number(one.old_value), number(one.new_value), str(one)]
