"""How much CPU an idle server takes: all its processes together, over a minute without requests.

    python -m micro.idle --gguf models/q4.gguf [--seconds 60]
    python -m micro.idle --url http://127.0.0.1:8000     # a server of this machine that runs already

The server does not poll: a worker sleeps in its inbox, and uvicorn's tick (10 a second) is the only timer.
"""

from __future__ import annotations

import time
from pathlib import Path

import click

from micro.served import Served, served


@click.command()
@click.option("--gguf", type=click.Path(path_type=Path, exists=True), help="Start a server of this model.")
@click.option("--url", help="Measure the server that listens here.")
@click.option("--seconds", default=60.0, show_default=True)
@click.option("--settle", default=5.0, show_default=True, help="Seconds to wait before.")
def main(gguf: Path | None, url: str | None, seconds: float, settle: float) -> None:
    with served(gguf, url) as server:
        time.sleep(settle)
        used = _measure(server, seconds)
    total = sum(used.values())
    for name, cpu_s in used.items():
        click.echo(f"{name:<24} {100 * cpu_s / seconds:6.2f} % of one core")
    click.echo(f"{'all processes':<24} {100 * total / seconds:6.2f} % of one core over {seconds:.0f} s")


def _measure(server: Served, seconds: float) -> dict[str, float]:
    before = server.cpu_seconds()
    time.sleep(seconds)
    after = server.cpu_seconds()
    if before.keys() != after.keys():
        raise click.ClickException("a process was replaced while it was measured")
    return {name: after[name] - before[name] for name in before}


if __name__ == "__main__":
    main()
