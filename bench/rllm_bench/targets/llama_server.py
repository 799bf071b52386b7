"""llama.cpp's own server: the binary, or the same C++ server inside the xllamacpp package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rllm_bench.load.client import Endpoint
from rllm_bench.records.cells import Settings
from rllm_bench.records.environment import package_version
from rllm_bench.targets.base import Launch, ignore_eos


@dataclass(frozen=True)
class LlamaServer:
    variant: str
    model: Path
    binary: str | None = None
    """None: `llama-server` on the PATH if there is one, else xllamacpp."""
    engine: str = "llama-server"

    def _binary(self) -> str | None:
        return shutil.which(self.binary or "llama-server")

    def missing(self) -> str | None:
        if not self.model.exists():
            return f"{self.model} is not there"
        if self.binary is not None and self._binary() is None:
            return f"{self.binary} is not an executable"
        if self._binary() is None and package_version("xllamacpp") is None:
            return "no llama-server on the PATH and xllamacpp is not installed (pip install xllamacpp)"
        return None

    def version(self) -> str:
        binary = self._binary()
        if binary is None:
            return f"xllamacpp {package_version('xllamacpp')}"
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30, check=False)
        lines = (done.stderr + done.stdout).splitlines()
        return next((line.strip() for line in lines if line.startswith("version")), "unknown")

    def launch(self, settings: Settings, port: int, end_tokens: tuple[int, ...]) -> Launch:
        binary = self._binary()
        head = [binary] if binary else [sys.executable, "-m", "rllm_bench.targets.xllamacpp_server"]
        command = [*head, "--model", str(self.model), "--port", str(port), "--metrics"]
        command += [
            "--parallel",
            str(settings.slots),
            "--ctx-size",
            str(settings.kv_cells or settings.slots * settings.ctx_per_slot),
            *(["--kv-unified"] if settings.kv_cells is not None else []),
        ]
        if binary:
            command += ["--host", "127.0.0.1"]
        if settings.threads is not None:
            command += ["--threads", str(settings.threads)]
        command += settings.extra.get(self.engine, [])
        body = {**ignore_eos(), "cache_prompt": settings.prefix_cache}
        endpoint = Endpoint(base_url=f"http://127.0.0.1:{port}", model="", body=body)
        return Launch(endpoint=endpoint, command=command, ready_path="/health", notes=self._notes(binary))

    @staticmethod
    def _notes(binary: str | None) -> tuple[str, ...]:
        if binary:
            return ()
        return (
            "the C++ server of llama.cpp, started through the xllamacpp package, whose wheel is built for "
            "any x86-64 processor: a llama-server built for this one may be a third faster",
        )
