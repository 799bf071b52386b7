"""rllm-serve, started as anyone would: by its command line."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from rllm_bench.client import Endpoint
from rllm_bench.environment import package_version
from rllm_bench.targets.base import Launch, Settings, ignore_eos


@dataclass(frozen=True)
class Rllm:
    variant: str
    model: Path
    engine: str = "rllm"

    def missing(self) -> str | None:
        return None if self.model.exists() else f"{self.model} is not there"

    def version(self) -> str:
        return package_version("rllm") or "unknown"

    def launch(self, settings: Settings, port: int, end_tokens: tuple[int, ...]) -> Launch:
        command = [sys.executable, "-m", "rllm.cli", "--gguf", str(self.model), "--port", str(port)]
        command += ["--slots", str(settings.slots), "--ctx-size", str(settings.ctx_per_slot)]
        if settings.threads is not None:
            command += ["--threads", str(settings.threads)]
        if not settings.prefix_cache:
            command += ["--no-prefix-cache"]
        if settings.gpu_memory_utilization is not None:
            command += ["--gpu-memory-utilization", str(settings.gpu_memory_utilization)]
        command += settings.extra.get(self.engine, [])
        endpoint = Endpoint(base_url=f"http://127.0.0.1:{port}", model="", body=ignore_eos())
        return Launch(endpoint=endpoint, command=command)
