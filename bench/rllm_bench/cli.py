"""`rllm-bench`: the commands. Each is a thin shell over a module of the same name."""

from __future__ import annotations

import click

from rllm_bench.commands import ceiling, compare, matrix, report, workload


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="rllm")
def main() -> None:
    """Measure LLM servers, and say what can be believed about it."""


for command in (matrix.command, compare.command, report.command, ceiling.command, workload.command):
    main.add_command(command)


if __name__ == "__main__":
    main()
