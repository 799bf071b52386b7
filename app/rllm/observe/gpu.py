"""What NVML says about the GPUs of this machine. Without a GPU or its driver: nothing, and no error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pynvml


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One card. ``None`` where it does not tell."""

    index: int
    name: str
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    utilization_ratio: float | None
    power_w: float | None
    temperature_c: float | None


class Gpus:
    """Opened once; `read` asks every card, in about a millisecond each."""

    def __init__(self, nvml: Any = pynvml) -> None:
        self._nvml = nvml
        self._handles: list[Any] = []
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlInit()
            self._handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]

    def __len__(self) -> int:
        return len(self._handles)

    @property
    def driver(self) -> str:
        version = self._ask(self._nvml.nvmlSystemGetDriverVersion) or "unknown"
        return version.decode() if isinstance(version, bytes) else str(version)

    def free_bytes(self) -> int:
        """Of all cards together."""
        return sum((card.memory_total_bytes or 0) - (card.memory_used_bytes or 0) for card in self.read())

    def read(self) -> Iterator[GpuReading]:
        nvml = self._nvml
        for index, handle in enumerate(self._handles):
            name = self._ask(nvml.nvmlDeviceGetName, handle) or "unknown"
            memory = self._ask(nvml.nvmlDeviceGetMemoryInfo, handle)
            load = self._ask(nvml.nvmlDeviceGetUtilizationRates, handle)
            power_mw = self._ask(nvml.nvmlDeviceGetPowerUsage, handle)
            yield GpuReading(
                index=index,
                name=name.decode() if isinstance(name, bytes) else name,
                memory_used_bytes=memory.used if memory else None,
                memory_total_bytes=memory.total if memory else None,
                utilization_ratio=load.gpu / 100 if load else None,
                power_w=power_mw / 1000 if power_mw is not None else None,
                temperature_c=self._ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            )

    def _ask(self, question: Callable[..., Any], *args: Any) -> Any:
        try:
            return question(*args)
        except self._nvml.NVMLError:  # each card answers only some of them
            return None
