"""``rllm-bench recommend``."""

from __future__ import annotations

from pathlib import Path

import click

from rllm_bench.commands.options import QUALITY, RUN
from rllm_bench.recommend.options import Floor, Option

_FLOORS = {"kld": "max_mean_kld", "same-top": "min_same_top", "ppl-ratio": "max_ppl_ratio"}


@click.command()
@click.option(
    "--quality", "quality_runs", multiple=True, required=True, type=QUALITY, help="Run of rllm-bench quality."
)
@click.option(
    "--speed", "speed_runs", multiple=True, required=True, type=RUN, help="Run of rllm-bench matrix."
)
@click.option(
    "--slo", default="ttft:2000,tpot:100", show_default=True, help="Limits in ms: ttft, tpot, e2el."
)
@click.option(
    "--floor", "floors", multiple=True, help="kld:X, same-top:X, ppl-ratio:X or gate.  [default: gate]"
)
@click.option(
    "--attain", default=0.95, show_default=True, type=click.FloatRange(0, 1), help="Share that must meet it."
)
@click.option(
    "--price-per-hour", type=click.FloatRange(0), default=None, help="Instead of that of the speed runs."
)
@click.option("--engine", default=None, help="Only subjects of this engine.")
@click.option(
    "--thresholds", default=None, type=click.Path(exists=True, path_type=Path), help="For the gate."
)
@click.option("-o", "--out", required=True, type=click.Path(file_okay=False, path_type=Path))
def recommend(
    quality_runs: tuple[Path, ...],
    speed_runs: tuple[Path, ...],
    slo: str,
    floors: tuple[str, ...],
    attain: float,
    price_per_hour: float | None,
    engine: str | None,
    thresholds: Path | None,
    out: Path,
) -> None:
    """Which variant, at which load, for a latency goal and a quality floor?

    Joins the runs by the hash of the model file. Writes OUT/recommendation.md and a plot per workload.
    """
    from rllm_bench.commands.options import parse_slos
    from rllm_bench.quality.gate import load_limits
    from rllm_bench.recommend import join

    (goal,) = parse_slos((slo,)).values()
    floor = _floor(floors or ("gate",))
    try:
        quality = join.qualities(quality_runs, load_limits(thresholds))
        speed = join.measured(speed_runs)
    except (ValueError, FileNotFoundError) as exc:
        raise click.ClickException(str(exc)) from exc

    def ask(factor: float) -> list[Option]:
        limits = {name: limit * factor for name, limit in goal.items()}
        found = join.options(speed, quality, limits, price_per_hour)
        return [option for option in found if engine is None or option.engine == engine]

    from rllm_bench.recommend.run import write

    click.echo(write(ask, goal, floor, attain, out))


def _floor(texts: tuple[str, ...]) -> Floor:
    asked: dict[str, float] = {}
    for text in texts:
        if text == "gate":
            continue
        name, _, value = text.partition(":")
        try:
            asked[_FLOORS[name]] = float(value)
        except (KeyError, ValueError):
            raise click.BadParameter(f"{text!r}: expected kld:X, same-top:X, ppl-ratio:X or gate") from None
    return Floor(gate="gate" in texts, **asked)


if __name__ == "__main__":
    recommend()
