"""Memory of the card under test by process, where NVML tells (in a container it often does not)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import psutil

from rllm_bench.records.environment import first_card


class GpuMemory:
    """Opened once. On a machine without a GPU every answer is None."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handle: Any = None
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml, self._handle = pynvml, pynvml.nvmlDeviceGetHandleByIndex(first_card())
        except Exception:  # NVMLError or no library: no GPU to read
            self._nvml = None

    def card_bytes(self) -> int | None:
        """In use on the whole card."""
        if self._nvml is None:
            return None
        with contextlib.suppress(self._nvml.NVMLError):
            return int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
        return None

    def by_process(self) -> dict[int, int]:
        """Bytes by process id; empty where NVML does not attribute them."""
        if self._nvml is None:
            return {}
        with contextlib.suppress(self._nvml.NVMLError):
            found = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
            return {entry.pid: int(entry.usedGpuMemory) for entry in found if entry.usedGpuMemory}
        return {}

    def of(self, pids: Iterable[int]) -> int | None:
        """Of these processes together; None where nothing is known of any."""
        known = self.by_process()
        held = [known[pid] for pid in pids if pid in known]
        return sum(held) if held else None


def family(pid: int) -> list[int]:
    """The process and everything below it."""
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(pid)
        return [pid, *(child.pid for child in root.children(recursive=True))]
    return [pid]
