"""rllm-serve, started as anyone would: by its command line."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from rllm_bench.load.client import Endpoint
from rllm_bench.records.cells import Settings
from rllm_bench.records.environment import package_version
from rllm_bench.targets.base import Launch, ignore_eos


@dataclass(frozen=True)
class Rllm:
    variant: str
    model: Path
    engine: str = "rllm"

    def missing(self) -> str | None:
        if not self.model.exists():
            return f"{self.model} is not there"
        return None if self._program() else "rllm-serve is not installed beside this Python"

    @staticmethod
    def _program() -> list[str] | None:
        """The command beside this Python, or on the PATH, or the package where it is not installed."""
        beside = Path(sys.executable).with_name("rllm-serve")
        found = str(beside) if beside.exists() else shutil.which("rllm-serve")
        if found:
            return [found]
        if importlib.util.find_spec("rllm") is not None:  # looks for it, does not import it
            return [sys.executable, "-c", "from rllm.cli import main; main()"]
        return None

    def version(self) -> str:
        return package_version("rllm") or "unknown"

    def launch(self, settings: Settings, port: int, end_tokens: tuple[int, ...]) -> Launch:
        command = [*(self._program() or ["rllm-serve"]), "--gguf", str(self.model), "--port", str(port)]
        command += ["--slots", str(settings.slots), "--ctx-size", str(settings.ctx_per_slot)]
        if settings.threads is not None:
            command += ["--threads", str(settings.threads)]
        if not settings.prefix_cache:
            command += ["--no-prefix-cache"]
        if settings.kv_cells is not None:
            command += ["--kv", "unified", "--kv-cells", str(settings.kv_cells)]
        command += settings.extra.get(self.engine, [])
        endpoint = Endpoint(base_url=f"http://127.0.0.1:{port}", model="", body=ignore_eos())
        return Launch(endpoint=endpoint, command=command, ready_path="/health")
