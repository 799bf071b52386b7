"""rllm-bench sweep"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from rllm_bench.commands.options import Numbers, parse_slos, place_options, take_places
from rllm_bench.figures import names
from rllm_bench.figures.words import number
from rllm_bench.report.tables import markdown
from rllm_bench.run.console import Plain
from rllm_bench.run.plan import MatrixConfig, PlanError
from rllm_bench.run.runner import CellFailed
from rllm_bench.search import tuning
from rllm_bench.search.sweep import Sweep, Trial, Validation, best_of
from rllm_bench.search.tuning import UnknownParameter, Value
from rllm_bench.targets.catalog import UnknownTarget


@click.command("sweep")
@click.option(
    "--target", default="rllm:q4", show_default=True, help="engine:variant; one subject is tuned at a time."
)
@click.option(
    "--param",
    "params",
    multiple=True,
    required=True,
    help=f"NAME=VALUE,VALUE,…  Names: {', '.join(tuning.OPTIONS)}.",
)
@click.option(
    "--objective",
    default="output_tps",
    show_default=True,
    help="output_tps, goodput (under --goodput), or a latency such as ttft_p99_ms.",
)
@click.option("--goodput", help="The goal of the objective goodput, e.g. ttft:2000,tpot:100 (ms).")
@click.option("--concurrency", type=Numbers(int), default="8", show_default=True)
@click.option("--prompt-tokens", type=Numbers(int), default="128", show_default=True)
@click.option("--output-tokens", type=Numbers(int), default="64", show_default=True)
@click.option(
    "--slots", type=click.IntRange(min=1), help="Of the baseline.  [default: the largest concurrency]"
)
@click.option(
    "--requests-per-user",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="In the search; validation takes ten.",
)
@click.option("--max-duration-s", type=float, default=60.0, show_default=True)
@click.option(
    "--repeats", type=click.IntRange(min=3), default=3, show_default=True, help="Of the validation."
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--name", default="sweep", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("reports"), show_default=True)
@place_options
def command(params: tuple[str, ...], objective: str, repeats: int, out: Path, **options: Any) -> None:
    """Search a grid of server parameters, and validate the best against the default on a fresh seed.

    A run that is broken off continues when the same command is given again.
    """
    places = take_places(options)
    goals = parse_slos((f"goal={options['goodput']}",)) if options["goodput"] else {}
    if objective == "goodput" and not goals:
        raise click.BadParameter("the objective goodput needs a goal", param_hint="--goodput")
    figure = "goodput_goal_rps" if objective == "goodput" else objective
    config = MatrixConfig(
        preset="standard",
        targets=[options["target"]],
        concurrency=options["concurrency"],
        prompt_tokens=options["prompt_tokens"],
        output_tokens=options["output_tokens"],
        requests_per_user=options["requests_per_user"],
        max_duration_s=options["max_duration_s"],
        slots=options["slots"],
        seed=options["seed"],
        slos=goals,
    )
    folder = out / options["name"]
    sweep = Sweep(config, places, folder, parse_grid(params), figure, Plain())
    lower = not names.figure(figure, goals).higher_is_better
    try:
        trials = sweep.search()
        best = best_of(trials, lower_is_better=lower)
        full = msgspec.structs.replace(config, requests_per_user=10)
        final = Sweep(full, places, folder, sweep.grid, figure, Plain())
        validation = final.validate(best.chosen, repeats) if best.chosen else None
    except (PlanError, UnknownTarget, UnknownParameter, CellFailed) as error:
        raise click.ClickException(str(error)) from error
    conclude(folder, config, figure, trials, best, validation)


def parse_grid(texts: tuple[str, ...]) -> dict[str, list[Value]]:
    grid: dict[str, list[Value]] = {}
    for text in texts:
        name, separator, values = text.partition("=")
        if not separator or not values:
            raise click.BadParameter(f"{text!r}: expected NAME=VALUE,VALUE", param_hint="--param")
        grid[name.strip().replace("-", "_")] = [_value(part) for part in values.split(",")]
    return grid


def _value(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def conclude(
    folder: Path,
    config: MatrixConfig,
    figure: str,
    trials: list[Trial],
    best: Trial,
    validation: Validation | None,
) -> None:
    """Writes the page, the raw scores and, when there is something to gain, the TOML; prints the page."""
    from rllm_bench.report.page import render

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_bytes(msgspec.json.format(msgspec.json.encode(trials), indent=1) + b"\n")
    verdict = _verdict(best, validation)
    text = page(config, figure, trials, verdict, validation)
    (folder / "sweep.md").write_text(text)
    if validation is not None:
        render([validation.baseline.folder, validation.tuned.folder], folder)
        engine, _, variant = config.targets[0].partition(":")
        if validation.confirmed and engine == "rllm":
            settings = validation.tuned.run().settings
            chosen = {"slots": settings.slots, **best.chosen}
            file = folder / f"rllm-{variant}.toml"
            file.write_text(tuning.toml(f"models/{variant}.gguf", settings.ctx_per_slot, chosen, verdict))
            text += f"\nConfiguration: {file} (rllm-serve --config {file})\n"
    click.echo(text)


def _verdict(best: Trial, validation: Validation | None) -> str:
    if validation is None:
        return "Null result: nothing in the grid scored better than the default. Keep the default."
    words = "; ".join(f"{one.group}: {one}" for one in validation.comparisons)
    if validation.confirmed:
        return f"{tuning.label(best.chosen)} is better than the default on a fresh seed ({words})."
    return (
        f"Null result: {tuning.label(best.chosen)} won the search, but on a fresh seed it is not better than "
        f"the default ({words}). Keep the default."
    )


def page(
    config: MatrixConfig, figure: str, trials: list[Trial], verdict: str, validation: Validation | None
) -> str:
    rows = [[tuning.label(t.chosen), number(t.score), t.error or ""] for t in trials]
    lines = [f"# Tuning {config.targets[0]} for {figure}", "", f"**{verdict}**", ""]
    if validation is not None:
        found = [
            [one.group, number(one.old_value), number(one.new_value), str(one)]
            for one in validation.comparisons
        ]
        lines += ["## Validation: fresh prompts, alternating order", ""]
        lines += [markdown(["load", "default", "tuned", "verdict"], found), "", "Full figures: report.md", ""]
    lines += ["## The search (one short run each; the best of many noisy figures flatters itself)", ""]
    lines += [markdown(["parameters", figure, ""], rows)]
    return "\n".join(lines) + "\n"
