"""Samples of the server's memory, processor time, GPU and gauges while a cell runs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil

from rllm_bench.records.cells import TelemetrySample
from rllm_bench.records.environment import first_card
from rllm_bench.run import prometheus
from rllm_bench.run.gpu_memory import GpuMemory, family

GAUGES = {
    "kv_usage": ("rllm_kv_cells_used/rllm_kv_cells", "vllm:kv_cache_usage_perc"),
    "running": ("rllm_requests_running", "vllm:num_requests_running", "llamacpp:requests_processing"),
    "waiting": ("rllm_requests_waiting", "vllm:num_requests_waiting", "llamacpp:requests_deferred"),
}
"""Our name of a gauge and the names that servers give it; the first one present counts; a/b is a share."""


def pick(samples: dict[str, float], names: tuple[str, ...]) -> float | None:
    for name in names:
        part, _, whole = name.partition("/")
        if part in samples and not whole:
            return samples[part]
        if part in samples and samples.get(whole):
            return samples[part] / samples[whole]
    return None


class Telemetry:
    """A thread that samples once per interval between `start` and `stop`; owns nothing of the server."""

    def __init__(self, pid: int | None, base_url: str, interval_s: float = 1.0) -> None:
        self._pid = pid
        self._base_url = base_url
        self._interval_s = interval_s
        self._halt = threading.Event()
        self._thread: threading.Thread | None = None
        self.samples: list[TelemetrySample] = []

    def start(self, epoch: float) -> None:
        """``epoch``: the cell's start on the monotonic clock."""
        self._thread = threading.Thread(target=self._loop, args=(epoch,), daemon=True)
        self._thread.start()

    def stop(self) -> list[TelemetrySample]:
        self._halt.set()
        if self._thread is not None:
            self._thread.join()
        return self.samples

    def _loop(self, epoch: float) -> None:
        gpu = open_gpu(self._pid)
        while not self._halt.is_set():
            self.samples.append(self._sample(epoch, gpu))
            self._halt.wait(self._interval_s)

    def _sample(self, epoch: float, gpu: Callable[[], dict[str, Any]]) -> TelemetrySample:
        rss, pss, cpu = _process_tree(self._pid)
        scraped = prometheus.scrape(self._base_url, timeout_s=0.5)
        gauges = {ours: pick(scraped, names) for ours, names in GAUGES.items()}
        return TelemetrySample(
            at_us=round((time.monotonic() - epoch) * 1e6),
            rss_bytes=rss,
            pss_bytes=pss,
            cpu_s=cpu,
            machine_busy=round(psutil.cpu_percent() / 100, 4),
            gauges={name: value for name, value in gauges.items() if value is not None},
            **gpu(),
        )


def _process_tree(pid: int | None) -> tuple[int | None, int | None, float | None]:
    """RSS counts shared pages once per process, PSS once."""
    if pid is None:
        return None, None, None
    rss, pss, cpu = 0, 0, 0.0
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error, OSError):
                rss += process.memory_info().rss
                pss += _pss(process.pid)
                times = process.cpu_times()
                cpu += times.user + times.system
    return rss or None, pss or None, round(cpu, 3) or None


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def open_gpu(pid: int | None = None) -> Callable[[], dict[str, Any]]:
    """Reads the first GPU; on a machine without one, reads nothing. Memory is that of ``pid`` and its
    children where NVML tells, else the card's."""
    memory = GpuMemory()
    if memory.card_bytes() is None:
        return dict
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(first_card())

    def read() -> dict[str, Any]:
        own = memory.of(family(pid)) if pid is not None else None
        with contextlib.suppress(pynvml.NVMLError):
            card = memory.card_bytes()
            return {
                "gpu_memory_bytes": own if own is not None else card,
                "gpu_card_bytes": card,
                "gpu_power_w": pynvml.nvmlDeviceGetPowerUsage(handle) / 1000,
                "gpu_utilization": pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
            }
        return {}

    return read


def write(path: Path, samples: list[TelemetrySample]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(sample) + b"\n" for sample in samples))
