"""What the load generator can do on this machine. Needs an idle one with about two cores per process.

    python -m tests.bench.capacity --processes 4 --streams 256 --tokens-per-s 45

Starts that many delay servers on one port and that many generator processes, and prints chunks per
second, cores used and the generator's own lag.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from rllm_bench.figures import metrics
from rllm_bench.report import checks
from rllm_bench.run import matrix
from rllm_bench.run.plan import MatrixConfig
from rllm_bench.targets import processes
from rllm_bench.targets.catalog import Places
from tests.bench.conftest import SCRIPT, Quiet


@click.command()
@click.option("--processes", "count", default=4, show_default=True)
@click.option("--streams", default=256, show_default=True)
@click.option("--tokens-per-s", default=45.0, show_default=True, help="Of each stream.")
@click.option("--tokens", default=400, show_default=True, help="Of each answer.")
def main(count: int, streams: int, tokens_per_s: float, tokens: int) -> None:
    behaviour = {"ttft_s": 0.05, "tpot_s": 1 / tokens_per_s, "spread_s": 1.0, "share_port": True}
    port = processes.free_port()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(SCRIPT), str(port), f"{folder}/served.jsonl", json.dumps(behaviour)]
        servers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
        try:
            for server in servers:
                if server.stdout is not None:
                    server.stdout.readline()
            _measure(f"http://127.0.0.1:{port}", Path(folder) / "run", count, streams, tokens)
        finally:
            for server in servers:
                server.kill()
                server.wait()


def _measure(url: str, folder: Path, count: int, streams: int, tokens: int) -> None:
    config = MatrixConfig(
        name="capacity",
        preset="smoke",
        targets=["url"],
        concurrency=[streams],
        prompt_tokens=[8],
        output_tokens=[tokens],
        requests_per_user=1,
        warmups=0,
    )
    prepared = matrix.prepare(config, Places(url=url))
    (cell,) = map(metrics.CellData.of, matrix.execute(prepared, folder, Quiet(), generators=count).cells())
    load = metrics.client_load(cell)
    begin, end = 1.2, cell.duration_s - 1.2  # all streams run in between
    times, _ = metrics.token_times(cell.good)
    rate = ((times > begin) & (times < end)).sum() / (end - begin)
    click.echo(f"{len(cell.good)}/{streams} streams, {rate:,.0f} chunks/s over {count} processes")
    click.echo(
        f"cores used: {load['client_cpu_cores']:.2f}; loop lag p99: {load['client_lag_p99_ms']:.2f} ms"
    )
    click.echo(f"ITL p50 {metrics.latencies(cell)['itl_p50_ms']:.2f} ms; {checks.invalid(cell) or 'valid'}")


if __name__ == "__main__":
    main()
