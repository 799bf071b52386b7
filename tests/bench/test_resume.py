"""`kill -9` loses at most the cell in flight; the run that is resumed gives the same report."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from rllm_bench.records.store import Store
from rllm_bench.run.plan import PlanError
from tests.bench.conftest import Delay, Measure


def command(url: str, out: Path, *more: str) -> list[str]:
    words = f"matrix --preset smoke --url {url} --out {out} --name run --warmups 0 --output-tokens 4"
    loads = "--prompt-tokens 8 --concurrency 1,2,3,4 --min-requests 8"
    return [sys.executable, "-m", "rllm_bench.cli", *words.split(), *loads.split(), *more]


@pytest.mark.slow
def test_killed_and_resumed(delay: Callable[..., Delay], tmp_path: Path) -> None:
    server = delay(ttft_s=0.05, tpot_s=0.005)
    running = subprocess.Popen(command(server.url, tmp_path), stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    for line in running.stderr:  # one line per finished cell
        if line.startswith("[2/4]"):
            break
    children = psutil.Process(running.pid).children(recursive=True)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    running.stderr.close()
    assert psutil.wait_procs(children, timeout=10)[1] == []  # nobody survives a killed bench
    before = _cells(tmp_path / "run")
    assert 2 <= len(before) < 4

    done = subprocess.run(
        command(server.url, tmp_path, "--resume"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    Store(tmp_path / "run").unpack()
    after = _cells(tmp_path / "run")
    assert len(after) == 4
    assert before.items() <= after.items()  # what was measured is not measured again
    assert not list((tmp_path / "run" / "raw").glob("*.part"))
    assert len(Store(tmp_path / "run").cells()) == 4

    whole = tmp_path / "whole"
    subprocess.run(command(server.url, whole), capture_output=True, check=True)
    assert _skeleton(tmp_path / "run", tmp_path) == _skeleton(whole / "run", whole)


def _skeleton(run: Path, out: Path) -> str:
    """The report without what differs between any two runs: measured numbers, and doubts about them.

    What was asked stays in: loads, and the hashes of the requests.
    """
    text = (run / "report.md").read_text().replace(str(out), "OUT").replace(" --resume", "")
    before, _, rest = text.partition("## Validity")
    hashes = rest.partition("Hashes of what was asked")[2]
    assert hashes.count("`") == 8
    without_doubt = re.sub(r"(?m)^Limitation: .*$", "", before)
    lines = (
        line for line in without_doubt.splitlines() if "begun" not in line and "load average" not in line
    )
    return re.sub(r"-+|[ ]+|[\d.,]+", "#", "\n".join(lines)) + hashes


def _cells(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "raw").glob("*.cell.json")}


def test_another_plan_does_not_continue_a_run(delay: Callable[..., Delay], measure: Measure) -> None:
    server = delay(ttft_s=0.0, tpot_s=0.0)
    measure(server.url)
    with pytest.raises(PlanError, match="planned with other cells"):
        measure(server.url, resume=True, seed=2)


def test_a_run_is_not_overwritten(delay: Callable[..., Delay], measure: Measure) -> None:
    server = delay(ttft_s=0.0, tpot_s=0.0)
    store = measure(server.url)
    before = json.loads((store.folder / "run.json").read_text())
    with pytest.raises(PlanError, match="holds a run already"):
        measure(server.url)
    assert json.loads((store.folder / "run.json").read_text()) == before
