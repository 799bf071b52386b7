"""rllm-bench knee"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rllm_bench.commands.options import Names, parse_slos, place_options, take_places
from rllm_bench.figures.words import number, slo
from rllm_bench.report.tables import markdown
from rllm_bench.run.console import Plain
from rllm_bench.run.plan import MatrixConfig, PlanError
from rllm_bench.run.runner import CellFailed
from rllm_bench.search.knee import Knee, Search, search_knee
from rllm_bench.targets.catalog import UnknownTarget


@click.command("knee")
@click.option("--targets", type=Names(), default="rllm", show_default=True)
@click.option("--variants", type=Names(), help="Names of models/NAME.gguf.  [default: q4,q8,f16]")
@click.option("--name", default="knee", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("reports"), show_default=True)
@click.option("--goodput", default="server=ttft:2000,tpot:100", show_default=True, help="The goal, in ms.")
@click.option(
    "--share",
    type=click.FloatRange(0, 1),
    default=0.99,
    show_default=True,
    help="Of requests that must meet it.",
)
@click.option(
    "--start-rate", type=float, default=0.5, show_default=True, help="Requests per second tried first."
)
@click.option(
    "--resolution",
    type=float,
    default=0.1,
    show_default=True,
    help="Relative width at which the search ends.",
)
@click.option("--probe-s", type=float, default=60.0, show_default=True, help="Length of one probe.")
@click.option(
    "--arrival", type=click.Choice(["poisson", "constant", "gamma"]), default="poisson", show_default=True
)
@click.option("--prompt-tokens", type=int, default=128, show_default=True)
@click.option("--output-tokens", type=int, default=64, show_default=True)
@click.option("--slots", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
@place_options
def command(name: str, out: Path, share: float, start_rate: float, resolution: float, **options: Any) -> None:
    """Find the highest rate of requests that meets a goal, by doubling and bisection."""
    places = take_places(options)
    config = MatrixConfig(
        preset="standard",
        targets=["url"] if places.url else options["targets"],
        variants=options["variants"] or [],
        rates=[start_rate],
        arrival=options["arrival"],
        open_duration_s=options["probe_s"],
        prompt_tokens=[options["prompt_tokens"]],
        output_tokens=[options["output_tokens"]],
        slots=options["slots"],
        seed=options["seed"],
        slos=parse_slos((options["goodput"],)),
    )
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    search = Search(start=start_rate, share=share, resolution=resolution)
    try:
        knees = search_knee(config, places, folder, search, Plain())
    except (PlanError, UnknownTarget, CellFailed) as error:
        raise click.ClickException(str(error)) from error
    (folder / "knee.md").write_text(page(knees))
    click.echo(page(knees))
    if failed := [f"{knee.subject}: {knee.unanswered}" for knee in knees if knee.unanswered]:
        raise click.ClickException("\n".join(failed))


def page(knees: list[Knee]) -> str:
    lines = ["# Highest rate that meets the goal", ""]
    for knee in knees:
        lines.append(f"Goal: {100 * knee.share:g} % of requests with {slo('', knee.slo).strip()}.")
        break
    rows = [[k.subject, number(k.rate), number(k.fails_at)] for k in knees]
    lines += ["", markdown(["subject", "meets it at (req/s)", "misses it at"], rows), ""]
    for knee in knees:
        probes = [
            [number(p.rate), f"{100 * p.attained:.1f} %", number(p.ttft_p99_ms), number(p.tpot_p99_ms)]
            for p in knee.probes
        ]
        lines += [f"## {knee.subject}: what was tried", ""]
        lines += [markdown(["req/s", "met the goal", "TTFT p99 (ms)", "TPOT p99 (ms)"], probes), ""]
    lines.append("One run per rate: a rate near the knee may fall on the other side another time.")
    return "\n".join(lines) + "\n"
