"""`rllm-bench`: the commands. Each is a thin shell over a module of the same name."""

from __future__ import annotations

import click

try:
    from rllm_bench.commands import (
        capacity,
        ceiling,
        compare,
        figures,
        index,
        knee,
        matrix,
        pack,
        report,
        study,
        summary,
        sweep,
        versus,
        workload,
    )
    from rllm_bench.commands.quality import quality
    from rllm_bench.commands.recommend import recommend
except ModuleNotFoundError as error:
    if str(error.name).startswith("rllm"):
        raise
    raise SystemExit(f"rllm-bench: {error}. A server alone needs none of it: install rllm[bench]") from None


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="rllm")
def main() -> None:
    """Measure LLM servers, and say what can be believed about it."""


_MODULES = (
    *(matrix, versus, study, sweep, knee, compare, report, pack, summary, figures, index, capacity, ceiling),
    workload,
)
for module in _MODULES:
    main.add_command(module.command)
main.add_command(quality)
main.add_command(recommend)


if __name__ == "__main__":
    main()
