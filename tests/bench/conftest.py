"""A delay server per test, and what it takes to measure it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rllm_bench.figures.metrics import CellData
from rllm_bench.figures.summary import judged
from rllm_bench.records.cells import CellSpec
from rllm_bench.records.store import Store
from rllm_bench.run import matrix
from rllm_bench.run.plan import MatrixConfig
from rllm_bench.targets import processes
from rllm_bench.targets.catalog import Places

SCRIPT = Path(__file__).with_name("delay_server.py")


class Quiet:
    """An Observer that remembers."""

    def __init__(self) -> None:
        self.finished: list[str] = []

    def cell_started(self, spec: CellSpec) -> None: ...

    def cell_progress(self, spec: CellSpec, requests: int) -> None: ...

    def cell_finished(self, spec: CellSpec, error: str | None) -> None:
        self.finished.append(spec.id)

    def note(self, text: str) -> None: ...


@dataclass(frozen=True)
class Delay:
    url: str
    log: Path

    def served(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture
def delay(tmp_path: Path) -> Iterator[Callable[..., Delay]]:
    """Starts a server that behaves as told; it is gone after the test."""
    with contextlib.ExitStack() as stack:

        def start(**behaviour: Any) -> Delay:
            port, log = processes.free_port(), tmp_path / "served.jsonl"
            command = [sys.executable, str(SCRIPT), str(port), str(log), json.dumps(behaviour)]
            child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            stack.callback(_end, child)
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            return Delay(f"http://127.0.0.1:{port}", log)

        yield start


def _end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
    if child.stdout is not None:
        child.stdout.close()


Measure = Callable[..., Store]


@pytest.fixture
def measure(tmp_path: Path) -> Measure:
    """Measures a running server by a configuration, into a run folder of that name."""

    def run(
        url: str, *, name: str = "run", resume: bool = False, generators: int | None = None, **config: Any
    ) -> Store:
        defaults: dict[str, Any] = {
            "name": name,
            "preset": "smoke",
            "targets": ["url"],
            "concurrency": [1],
            "prompt_tokens": [8],
            "output_tokens": [4],
            "warmups": 0,
        }
        prepared = matrix.prepare(MatrixConfig(**{**defaults, **config}), Places(url=url))
        return matrix.execute(prepared, tmp_path / name, Quiet(), resume=resume, generators=generators)

    return run


def only_cell(store: Store) -> CellData:
    (cell,) = judged(store)
    return cell
