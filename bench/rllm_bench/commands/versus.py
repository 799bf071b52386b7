"""rllm-bench versus"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from rllm_bench import scenarios
from rllm_bench.commands.carry_out import carry_out
from rllm_bench.commands.options import Names, Numbers, place_options, take_places
from rllm_bench.run import plan

USUAL = ("unique", "shared-prefix", "multi-turn", "interference", "oversubscribed", "risk-review")


@click.command("versus")
@click.argument("targets", nargs=-1, required=True, metavar="A B [C ...]")
@click.option(
    "--scenarios",
    "names",
    type=Names(),
    default=",".join(USUAL),
    show_default=True,
    help=f"Of {', '.join(scenarios.known())}.",
)
@click.option("--pairs", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--concurrency", type=Numbers(int), help="Instead of each scenario's own.")
@click.option("--prompt-tokens", type=Numbers(int), help="Instead of each scenario's own.")
@click.option("--output-tokens", type=Numbers(int), help="Instead of each scenario's own.")
@click.option("--prefix-tokens", type=click.IntRange(min=1), help="Instead of each scenario's own.")
@click.option("--requests-per-user", type=click.IntRange(min=1))
@click.option("--min-requests", type=click.IntRange(min=1))
@click.option("--slots", type=click.IntRange(min=1))
@click.option("--ctx-per-slot", type=click.IntRange(min=1))
@click.option("--threads", type=click.IntRange(min=1))
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--name", help="Name of the run.  [default: versus and time]")
@click.option("--out", type=click.Path(path_type=Path), default=Path("reports"), show_default=True)
@click.option("--budget-s", type=float, help="Begin nothing that would probably last longer.")
@click.option("--dry-run", is_flag=True, help="Print the plan and how long it may take.")
@click.option("--resume", is_flag=True, help="Continue the run of this name.")
@place_options
def command(targets: tuple[str, ...], names: list[str], pairs: int, **options: Any) -> None:
    """Is A better than B? Both are measured pair by pair, in every scenario, with the ratio and its interval.

    A target is ENGINE:VARIANT, with options of its own behind it and variables before it, in quotes; or the
    address of a running server.

    \b
      rllm-bench versus rllm:q4 llama-server:q4 "llama-server:q4 --kv-unified"
      rllm-bench versus "rllm:q4 --speculative-tokens=7" rllm:q4 --scenarios chat,summarize,copy
      rllm-bench versus http://127.0.0.1:8000 http://127.0.0.1:8001 --scenarios risk-review
    """
    if len(targets) < 2:
        raise click.UsageError("name two targets at least")
    places, run = take_places(options), _taken(options, "name", "out", "budget_s", "dry_run", "resume")
    given = {name: value for name, value in options.items() if value is not None}
    given["targets"], addresses = _addresses(targets)
    places = msgspec.structs.replace(places, at={**places.at, **addresses})
    carry_out(lambda: plan.versus(names, given, pairs), places, continue_on_error=True, **run)


def _taken(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: options.pop(name) for name in names}


def _addresses(targets: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Addresses become targets `url:HOST_PORT`, known by where they are."""
    named, found = [], {}
    for text in targets:
        if text.startswith(("http://", "https://")):
            variant = text.partition("//")[2].strip("/").replace(":", "_").replace("/", "_")
            found[f"url/{variant}"] = text
            named.append(f"url:{variant}")
        else:
            named.append(text)
    return named, found
