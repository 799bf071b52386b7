"""Seconds from the command to the first "ready" and to the first answer's end, of this checkout and another.

    python -m micro.start_time --gguf models/q4.gguf --against ../older --pairs 7

Both run in this environment, in turns, so that what disturbs the machine disturbs both. Medians and ranges.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import click
import psutil

HERE = Path(__file__).resolve().parents[2]
WHAT = ("ready", "processor time", "first answer")
_ASK = json.dumps({"prompt": "The capital of France is", "max_tokens": 1, "temperature": 0}).encode()


@click.command()
@click.option("--gguf", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--against", type=click.Path(exists=True, path_type=Path), help="A checkout.")
@click.option("--pairs", default=7, show_default=True)
@click.option("--port", default=20190, show_default=True)
@click.argument("options", nargs=-1)
def main(gguf: Path, against: Path | None, pairs: int, port: int, options: tuple[str, ...]) -> None:
    """OPTIONS go to both servers."""
    sides = {"this": HERE} | ({"other": against.resolve()} if against else {})
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sides}
    for turn in range(pairs):
        for name, checkout in sorted(sides.items(), reverse=turn % 2 == 1):
            taken = _start(checkout, gguf, port, options)
            times[name].append(taken)
            texts = [f"{what} {seconds:.2f} s" for what, seconds in zip(WHAT, taken, strict=True)]
            click.echo(f"{turn + 1} {name:5} {', '.join(texts)}")
    for name, runs in times.items():
        for what, values in zip(WHAT, zip(*runs, strict=True), strict=True):
            click.echo(
                f"{name:5} {what:14} median {statistics.median(values):.2f} s "
                f"({min(values):.2f} to {max(values):.2f})"
            )


def _start(checkout: Path, gguf: Path, port: int, options: tuple[str, ...]) -> tuple[float, float, float]:
    """Until /health says ok; the processor time that this took, which a busy machine changes less; and until
    an answer of one token is there."""
    command = [sys.executable, "-c", "from rllm.cli import main; main()"]
    command += ["--gguf", str(gguf), "--port", str(port), "--log-level", "error", *options]
    env = {**os.environ, "PYTHONPATH": str(checkout / "app")}
    address = f"http://127.0.0.1:{port}"
    began = time.monotonic()
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as server:
        try:
            while not _answers(f"{address}/health"):
                if server.poll() is not None:
                    raise SystemExit(f"the server ended with {server.returncode}")
                time.sleep(0.01)
            ready_s, processor_s = time.monotonic() - began, _processor_s(server.pid)
            headers = {"content-type": "application/json"}
            urllib.request.urlopen(urllib.request.Request(f"{address}/v1/completions", _ASK, headers)).read()
            return ready_s, processor_s, time.monotonic() - began
        finally:
            server.terminate()
            server.wait(30)


def _processor_s(pid: int) -> float:
    server = psutil.Process(pid)
    times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _answers(url: str) -> bool:
    try:
        return bool(urllib.request.urlopen(url, timeout=5).status == 200)
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    main()
