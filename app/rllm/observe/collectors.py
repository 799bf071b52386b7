"""Readings taken when somebody scrapes, and never in between: processes, the log and GPUs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psutil
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rllm.observe.gpu import Gpus


class ProcessCollector(Collector):
    """CPU and memory of the API process and of every worker."""

    def __init__(self) -> None:
        self._processes = {"api": psutil.Process()}

    def watch(self, name: str, pid: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            self._processes[name] = psutil.Process(pid)

    def forget(self, name: str) -> None:
        self._processes.pop(name, None)

    def collect(self) -> Iterator[Metric]:
        label = ["process"]
        cpu = CounterMetricFamily("rllm_process_cpu_seconds", "CPU time, user and system.", labels=label)
        memory = GaugeMetricFamily("rllm_process_resident_memory_bytes", "Resident memory.", labels=label)
        threads = GaugeMetricFamily("rllm_process_threads", "Threads.", labels=label)
        files = GaugeMetricFamily("rllm_process_open_fds", "Open file descriptors.", labels=label)
        started = GaugeMetricFamily("rllm_process_start_time_seconds", "Start, Unix time.", labels=label)
        for name, process in self._processes.items():
            with contextlib.suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                cpu.add_metric([name], times.user + times.system)
                memory.add_metric([name], process.memory_info().rss)
                threads.add_metric([name], process.num_threads())
                files.add_metric([name], process.num_fds())
                started.add_metric([name], process.create_time())
        yield from (cpu, memory, threads, files, started)


class LogCollector(Collector):
    """What became of the log."""

    def __init__(self, num_dropped: Callable[[], int]) -> None:
        self._num_dropped = num_dropped

    def collect(self) -> Iterator[Metric]:
        text = "Lines of the log that are lost, because nobody read it or it was closed."
        yield CounterMetricFamily("rllm_log_lines_dropped", text, value=self._num_dropped())


class GpuCollector(Collector):
    """What NVML tells; nothing at all where there is no GPU."""

    def __init__(self, gpus: Gpus) -> None:
        self._gpus = gpus

    def collect(self) -> Iterator[Metric]:
        if not len(self._gpus):
            return
        label = ["gpu", "name"]
        families = {
            "memory_used_bytes": GaugeMetricFamily(
                "rllm_gpu_memory_used_bytes", "Memory in use.", labels=label
            ),
            "memory_total_bytes": GaugeMetricFamily(
                "rllm_gpu_memory_bytes", "Memory there is.", labels=label
            ),
            "utilization_ratio": GaugeMetricFamily(
                "rllm_gpu_utilization_ratio", "Share of time with a kernel running.", labels=label
            ),
            "power_w": GaugeMetricFamily("rllm_gpu_power_watts", "Power drawn.", labels=label),
            "temperature_c": GaugeMetricFamily("rllm_gpu_temperature_celsius", "Temperature.", labels=label),
        }
        for reading in self._gpus.read():
            for field, family in families.items():
                if (value := getattr(reading, field)) is not None:
                    family.add_metric([str(reading.index), reading.name], value)
        yield from families.values()
