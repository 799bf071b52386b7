"""kill -9 of one instance under load: who lost an answer, and how long until all was as before."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import urllib.error
from typing import Any

import msgspec
import psutil

from rllm_bench.figures import metrics
from rllm_bench.load.direct import open_url
from rllm_bench.records.cells import CellSpec, Load, WorkloadSpec
from rllm_bench.records.store import Store
from rllm_bench.run import plan, prometheus
from rllm_bench.run.measure import measure
from rllm_bench.targets.server import Server

NEEDS_S = 45.0
_USERS, _REQUESTS = 32, 256
_KILL_AFTER_S = 4.0
_PATIENCE_S = 40.0
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
    killer = threading.Thread(target=_kill, args=(server, happened), daemon=True)
    killer.start()
    outcome = measure(store, server, spec)
    killer.join(_PATIENCE_S)
    store.save(outcome.record, outcome.telemetry)
    data = metrics.CellData.of(store.load(spec))
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


def _kill(server: Server, happened: dict[str, Any]) -> None:
    """Under load; then watch until every instance is ready again."""
    time.sleep(_KILL_AFTER_S)
    found = workers(server.pid)
    happened["workers"] = len(found)
    if not found:
        return
    happened["killed_pid"] = found[0].pid
    found[0].send_signal(signal.SIGKILL)
    killed_at, gone = time.monotonic(), False
    while time.monotonic() - killed_at < _PATIENCE_S:
        states = _states(server.launch.endpoint.base_url)
        gone = gone or any(state != "ready" for state in states)
        if gone and states and all(state == "ready" for state in states):
            happened["all_ready_again_s"] = round(time.monotonic() - killed_at, 2)
            return
        time.sleep(0.05)


def _states(base_url: str) -> list[str]:
    try:
        with open_url(f"{base_url}/health/ready", 5) as response:
            data = response.read()
    except urllib.error.HTTPError as error:  # not ready is an answer, too
        data = error.read()
    except OSError:
        return []
    return list(msgspec.json.decode(data).get("instances", {}).values())
