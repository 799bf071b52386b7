"""rllm-bench matrix"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rllm_bench import scenarios
from rllm_bench.commands.carry_out import carry_out
from rllm_bench.commands.options import Names, Numbers, parse_slos, place_options, take_places
from rllm_bench.run import plan
from rllm_bench.run.plan import MatrixConfig


@click.command("matrix")
@click.option(
    "--preset",
    type=click.Choice(["smoke", "quick", "standard", "full"]),
    help="How much is measured.  [default: quick]",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML; options given here win over it.",
)
@click.option("--name", help="Name of the run.  [default: preset and time]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Where runs go.",
)
@click.option(
    "--targets",
    type=Names(),
    help="rllm, llama-server, llama-cpp-python, vllm, url; or engine:variant.  [default: rllm]",
)
@click.option("--variants", type=Names(), help="Names of models/NAME.gguf.  [default: q4,q8,f16]")
@click.option("--concurrency", type=Numbers(int), help="Closed loop: users.")
@click.option("--rates", type=Numbers(float), help="Open loop: requests per second.")
@click.option(
    "--arrival",
    type=click.Choice(["poisson", "constant", "gamma", "ramp", "trace"]),
    help="Of the open loop.",
)
@click.option("--burstiness", type=float, help="Gamma shape; below 1 is burstier than Poisson.")
@click.option(
    "--max-in-flight",
    type=click.IntRange(min=1),
    help="Open loop: further requests wait, and the wait counts.",
)
@click.option("--open-duration-s", type=float, help="Length of an open-loop cell.  [default: 60]")
@click.option("--prompt-tokens", type=Numbers(int))
@click.option("--output-tokens", type=Numbers(int))
@click.option(
    "--scenario", "--workload", "workload", type=click.Choice([*scenarios.known()]), help="What is asked."
)
@click.option("--prefix-tokens", type=int, help="shared-prefix: tokens in common.")
@click.option("--prefix-groups", type=int, help="shared-prefix: number of different prefixes.")
@click.option("--turns", type=int, help="multi-turn: turns of a conversation.")
@click.option("--prompts-file", help="file: JSONL, as `rllm-bench workload` writes it.")
@click.option("--repeats", "--repeat", type=click.IntRange(min=1))
@click.option("--requests-per-user", type=click.IntRange(min=1))
@click.option("--min-requests", type=click.IntRange(min=1))
@click.option("--max-duration-s", type=float, help="A closed-loop cell sends no more after this.")
@click.option("--warmups", type=click.IntRange(min=0))
@click.option("--seed", type=int)
@click.option(
    "--slots", type=click.IntRange(min=1), help="Of every server.  [default: the largest concurrency]"
)
@click.option("--threads", type=click.IntRange(min=1))
@click.option("--no-prefix-cache", "prefix_cache", flag_value=False, type=bool, default=None)
@click.option(
    "--goodput",
    multiple=True,
    help="A goal such as fast=ttft:500,tpot:30 (ms); several allowed.  [default: MLPerf's two]",
)
@click.option("--price-per-hour", type=float, help="USD; for the cost columns.")
@click.option("--machine-kind", help="Take the price of this kind from the packaged table.")
@click.option(
    "--target-arg", multiple=True, help="ENGINE=OPTION for the server's command line, e.g. rllm=--kv=split."
)
@click.option(
    "--generators", type=click.IntRange(min=1), help="Load generator processes.  [default: by concurrency]"
)
@click.option("--dry-run", is_flag=True, help="Print the plan and how long it may take.")
@click.option(
    "--no-report", is_flag=True, help="Measure only; `rllm-bench report` renders, here or elsewhere."
)
@click.option("--resume", is_flag=True, help="Continue the run of this name.")
@click.option("--continue-on-error", is_flag=True, help="A server that fails costs its own cells only.")
@place_options
def command(
    dry_run: bool, no_report: bool, resume: bool, continue_on_error: bool, out: Path, **options: Any
) -> None:
    """Measure every target under every load, and write reports/NAME/report.md."""
    places = take_places(options)
    generators = options.pop("generators")
    carry_out(
        lambda: plan.matrix(build_config(options, places.url is not None)),
        places,
        out=out,
        dry_run=dry_run,
        resume=resume,
        continue_on_error=continue_on_error,
        generators=generators,
        no_report=no_report,
    )


def build_config(options: dict[str, Any], has_url: bool) -> MatrixConfig:
    path = options.pop("config")
    goals = parse_slos(options.pop("goodput"))
    extra = _engine_options(options.pop("target_arg"))
    given = {name: value for name, value in options.items() if value is not None}
    if goals:
        given["slos"] = goals
    if extra:
        given["extra"] = extra
    if has_url and "targets" not in given:
        given["targets"] = ["url"]
    return plan.load_config(path, given) if path else MatrixConfig(**given)


def _engine_options(texts: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in texts:
        engine, separator, option = text.partition("=")
        if not separator:
            raise click.BadParameter(f"{text!r}: expected ENGINE=OPTION", param_hint="--target-arg")
        found.setdefault(engine, []).append(option)
    return found
