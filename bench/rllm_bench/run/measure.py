"""One cell: load generators started, synchronised, watched; their records put in the store."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from rllm_bench import scenarios
from rllm_bench.load.client import Endpoint
from rllm_bench.records.cells import CellRecord, CellSpec, GeneratorRecord, TelemetrySample
from rllm_bench.records.store import Store, file_name
from rllm_bench.run import prometheus
from rllm_bench.run.generator import Job
from rllm_bench.run.telemetry import Telemetry
from rllm_bench.scenarios.base import share
from rllm_bench.targets import processes
from rllm_bench.targets.server import Server

Progress = Callable[[int], None]
_START_DELAY_S = 0.2
_USERS_PER_PROCESS = 64


class GeneratorFailed(Exception):
    """A load generator process ended without its record."""


@dataclass(frozen=True, slots=True)
class Outcome:
    record: CellRecord
    telemetry: list[TelemetrySample]


def num_generators(spec: CellSpec) -> int:
    """One process sends for up to 64 users; above, one more for each further 64."""
    return max(1, -(-(spec.load.concurrency or 1) // _USERS_PER_PROCESS))


def measure(
    store: Store,
    server: Server,
    spec: CellSpec,
    *,
    generators: int | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Raises GeneratorFailed; a server that fails requests is a result, not an exception."""
    count = min(generators or num_generators(spec), spec.load.concurrency or spec.num_requests)
    endpoint = asked(server.launch.endpoint, spec)
    base_url = endpoint.base_url
    vocabulary = store.vocabulary()
    workload_hash = scenarios.workload(spec.workload, vocabulary).digest(spec.num_requests)
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    with _children(store, spec, _jobs(store, spec, endpoint, count)) as children:
        for child in children:
            _expect(child, "ready")
        before = prometheus.scrape(base_url)
        telemetry = Telemetry(server.pid, base_url)
        start = time.monotonic() + _START_DELAY_S
        for child in children:
            _write_line(child, repr(start))
        telemetry.start(start)
        try:
            records = _collect(children, progress)
        finally:
            samples = telemetry.stop()
    record = CellRecord(
        spec=spec,
        workload_hash=workload_hash,
        prompt_format=endpoint.prompt_format,
        target={**server.describe(), "body": endpoint.body},
        started_at=started_at,
        generators=records,
        metrics_before=before,
        metrics_after=prometheus.scrape(base_url),
    )
    return Outcome(record, samples)


def asked(endpoint: Endpoint, spec: CellSpec) -> Endpoint:
    """How the cell's scenario and its plan ask the server."""
    found = scenarios.find(spec.workload.kind).asks(endpoint)
    body = {name: value for name, value in {**found.body, **spec.body}.items() if value is not None}
    return msgspec.structs.replace(found, body=body)


def _jobs(store: Store, spec: CellSpec, endpoint: Endpoint, count: int) -> list[Job]:
    return [
        Job(
            spec=spec,
            endpoint=endpoint,
            vocabulary_path=str(store.vocabulary_path),
            requests_path=str(store.part(spec, process)),
            process=process,
            num_processes=count,
        )
        for process in range(count)
        if spec.load.mode == "open" or share(spec.load.concurrency or 1, process, count) > 0
    ]


@contextlib.contextmanager
def _children(store: Store, spec: CellSpec, jobs: list[Job]) -> Iterator[list[subprocess.Popen[str]]]:
    log = store.folder / "logs" / f"{file_name(spec)}.generator.log"
    command = [sys.executable, "-m", "rllm_bench.run.generator"]
    children: list[subprocess.Popen[str]] = []
    try:
        for job in jobs:
            child = processes.start(command, log=log, piped=True)
            children.append(child)
            _write_line(child, msgspec.json.encode(job).decode())
        yield children
    finally:
        for child in children:
            processes.stop(child, grace_s=2)
        if log.exists() and log.stat().st_size == 0:
            log.unlink()


def _write_line(child: subprocess.Popen[str], line: str) -> None:
    if child.stdin is None:
        raise GeneratorFailed("no pipe to the load generator")
    try:
        child.stdin.write(line + "\n")
        child.stdin.flush()
    except BrokenPipeError as error:
        raise GeneratorFailed("the load generator ended early; see its log") from error


def _read_line(child: subprocess.Popen[str]) -> dict[str, object]:
    line = child.stdout.readline() if child.stdout is not None else ""
    if not line:
        raise GeneratorFailed("the load generator ended without its record; see its log")
    value: dict[str, object] = json.loads(line)
    return value


def _expect(child: subprocess.Popen[str], key: str) -> None:
    if key not in _read_line(child):
        raise GeneratorFailed(f"the load generator did not say {key}")


def _collect(children: list[subprocess.Popen[str]], progress: Progress | None) -> list[GeneratorRecord]:
    """Reads the children in turn; only the first one's progress is shown, scaled to all of them."""
    records = []
    for child in children:
        while "done" in (line := _read_line(child)):
            if progress is not None and child is children[0]:
                progress(int(str(line["done"])) * len(children))
        records.append(msgspec.convert(line, GeneratorRecord))
    return records
