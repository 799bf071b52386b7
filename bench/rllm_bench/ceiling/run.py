"""`rllm-bench ceiling`: what engine and memory allow, for the roofline of a report."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np

from rllm_bench.ceiling.file import Ceiling, CeilingJob, Measured
from rllm_bench.records import environment


class CeilingFailed(Exception):
    """The model could not be measured; the message is the last line of its process."""


def ceiling(job: CeilingJob, bandwidth: tuple[float, str]) -> Ceiling:
    command = [sys.executable, "-m", "rllm_bench.ceiling.worker"]
    done = subprocess.run(command, input=msgspec.json.encode(job), capture_output=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no message"]
        raise CeilingFailed(f"{job.model}: {lines[-1]}")
    path = Path(job.model)
    return Ceiling(
        job=job,
        model_bytes=path.stat().st_size,
        model_sha256=environment.sha256(path),
        bandwidth_bytes_s=bandwidth[0],
        bandwidth_source=bandwidth[1],
        measured=msgspec.json.decode(done.stdout, type=Measured),
    )


def bandwidth() -> tuple[float, str]:
    """Of the memory that holds the weights, in bytes per second, and how it is known."""
    card = _card_bandwidth()
    if card is not None:
        return card, "the card's memory clock and bus width by NVML (a datasheet figure, not measured)"
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return measure_bandwidth(threads), f"measured: {threads} threads reading 512 MiB, best of 5"


def measure_bandwidth(threads: int, size: int = 512 * 2**20, rounds: int = 5) -> float:
    """Best of some streaming reads of an array far larger than any cache. numpy's sum over whole
    numbers vectorises and drops the GIL."""
    parts = np.array_split(np.ones(size // 8, dtype=np.int64), threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            began = time.perf_counter()
            list(pool.map(np.sum, parts))
            best = min(best, time.perf_counter() - began)
    return size / best


def _card_bandwidth() -> float | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        clock_mhz = pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_MEM)
        bits = pynvml.nvmlDeviceGetMemoryBusWidth(handle)
    except Exception:  # NVMLError or no library: no card to ask
        return None
    return float(clock_mhz * 1e6 * 2 * bits / 8)
