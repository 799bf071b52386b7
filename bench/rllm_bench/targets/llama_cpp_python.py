"""llama-cpp-python's `llama_cpp.server`: one request at a time, no usage in streams."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rllm_bench.load.client import Endpoint
from rllm_bench.records.cells import Settings
from rllm_bench.targets.base import GREEDY, Launch


@dataclass(frozen=True)
class LlamaCppPython:
    variant: str
    model: Path
    python: str = sys.executable
    engine: str = "llama-cpp-python"

    def missing(self) -> str | None:
        if not self.model.exists():
            return f"{self.model} is not there"
        check = "import llama_cpp.server.app"
        done = subprocess.run(
            [self.python, "-c", check], capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode == 0:
            return None
        last = (done.stderr.strip().splitlines() or ["unknown"])[-1]
        return f"llama_cpp.server does not import ({last}); pip install 'llama-cpp-python[server]'"

    def version(self) -> str:
        code = "import importlib.metadata as m; print(m.version('llama-cpp-python'))"
        done = subprocess.run(
            [self.python, "-c", code], capture_output=True, text=True, timeout=30, check=False
        )
        return done.stdout.strip() or "unknown"

    def launch(self, settings: Settings, port: int, end_tokens: tuple[int, ...]) -> Launch:
        command = [self.python, "-m", "llama_cpp.server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--model", str(self.model), "--n_ctx", str(settings.ctx_per_slot)]
        command += ["--interrupt_requests", "false"]
        if settings.threads is not None:
            command += ["--n_threads", str(settings.threads), "--n_threads_batch", str(settings.threads)]
        command += settings.extra.get(self.engine, [])
        # No ignore_eos here: the tokens that end a generation are banned instead.
        body: dict[str, Any] = {**GREEDY, "logit_bias": {str(token): -100.0 for token in end_tokens}}
        endpoint = Endpoint(
            base_url=f"http://127.0.0.1:{port}", model="", prompt_format="text", body=body, needs_usage=False
        )
        notes = (  # with one slot, a cache of all slots has no meaning
            "computes one request at a time: it has no slots",
            "takes text, not token ids; the prompts are made of words that are one token each",
            "sends no usage in streams: output tokens are max_tokens where it stopped by length",
        )
        return Launch(endpoint=endpoint, command=command, notes=notes)
