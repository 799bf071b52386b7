"""kill -9 of one instance under load: who lost an answer, and how long until all was as before."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import Any

import msgspec
import psutil

from rllm_bench import metrics, plan, prometheus
from rllm_bench.measure import measure
from rllm_bench.records import CellSpec, Load, WorkloadSpec
from rllm_bench.store import Store
from rllm_bench.targets.server import Server

NEEDS_S = 45.0
_USERS, _REQUESTS = 32, 256
_KILL_AFTER_S = 4.0
_METRICS = (
    "rllm_worker_restarts_total",
    "rllm_sequences_lost_total",
    "rllm_requests_total",
    "rllm_worker_up",
)


def kill_one(store: Store, server: Server, *, seed: int) -> dict[str, Any]:
    """Also written to kill.json in the store, with the requests in raw/kill.*."""
    spec = CellSpec(
        subject=f"{server.target.engine}/{server.target.variant}",
        workload=WorkloadSpec(prompt_tokens=400, output_tokens=128, seed=plan.cell_seed(seed, "kill", 0)),
        load=Load(mode="closed", concurrency=_USERS),
        num_requests=_REQUESTS,
        repeat=99,
        intervals=False,
        timeout_s=60.0,
    )
    happened: dict[str, Any] = {}
    killer = threading.Timer(_KILL_AFTER_S, _kill, (server.pid, happened))
    killer.start()
    try:
        outcome = measure(store, server, spec)
    finally:
        killer.cancel()
        killer.join()
    store.save(outcome.record, outcome.telemetry)
    happened["workers_back_s"] = _wait_for_workers(server.pid, happened)
    data = store.load(spec)
    happened["requests"] = len(data.requests)
    happened["answered"] = len(data.good)
    happened["errors"] = metrics.errors(data)
    after = prometheus.scrape(server.launch.endpoint.base_url)
    happened["metrics"] = {name: value for name, value in after.items() if name.startswith(_METRICS)}
    (store.folder / "kill.json").write_bytes(msgspec.json.format(msgspec.json.encode(happened), indent=1))
    return happened


def workers(pid: int | None) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "rllm.workers" in child.cmdline():
                found.append(child)
    return found


def _kill(pid: int | None, happened: dict[str, Any]) -> None:
    found = workers(pid)
    happened["workers"] = len(found)
    if found:
        happened["killed_pid"] = found[0].pid
        happened["killed_at"] = time.monotonic()
        found[0].send_signal(signal.SIGKILL)


def _wait_for_workers(pid: int | None, happened: dict[str, Any], patience_s: float = 30.0) -> float | None:
    """Seconds after the kill until as many workers run as before (not until the new one has loaded)."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if len(workers(pid)) >= happened.get("workers", 1):
            killed_at: float = happened.pop("killed_at", time.monotonic())
            return round(time.monotonic() - killed_at, 2)
        time.sleep(0.2)
    return None
