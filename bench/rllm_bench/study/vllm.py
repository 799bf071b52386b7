"""A vLLM that is started once, takes two minutes for it, and stays for several invocations of the study.

It is a session of its own, known by a file in the work folder; others with other settings may run beside it,
told apart by a label. `stop` ends all of them.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import psutil

from rllm_bench.load.direct import open_url
from rllm_bench.targets import processes

PATIENCE_S = 300.0


class Running(msgspec.Struct, frozen=True):
    """A vLLM that was started; whether it lives is another question."""

    url: str
    command: tuple[str, ...] = ()
    pid: int | None = None
    log: str = ""
    started_at: float = 0.0

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError, ValueError):
            with open_url(f"{self.url}/health", 2) as response:
                return bool(response.status == 200)
        return False

    def failed(self) -> str | None:
        """Why it cannot be asked, where that is known; None while it lives."""
        if self.pid is None or _alive(self.pid):
            return None
        return f"vLLM ended; {self.log} says:\n{processes.tail(Path(self.log), 15)}"

    def wait_ready(self, deadline: float) -> str | None:
        """Until it answers or ``deadline`` (time.time()); why not, or None."""
        while not self.is_ready():
            if (reason := self.failed()) is not None:
                return reason
            if time.time() > deadline:
                return f"vLLM is not ready; {self.log} ends with:\n{processes.tail(Path(self.log), 8)}"
            time.sleep(1.0)
        return None

    def version(self) -> str:
        with contextlib.suppress(OSError, ValueError, KeyError):
            with open_url(f"{self.url}/version", 5) as response:
                return str(msgspec.json.decode(response.read())["version"])
        return "unknown"


def default_command(environ: Mapping[str, str]) -> tuple[str, dict[str, str | None]] | None:
    """A template and its environment, of what the GPU machine's set-up offers ($W/vllm/site, $G)."""
    work, gpu = environ.get("W"), environ.get("G")
    if not work or not gpu or not Path(work, "vllm", "site").is_dir():
        return None
    template = (
        f"python3 -m vllm.entrypoints.openai.api_server --model {gpu}/llama8b-shape --served-model-name m "
        "--load-format dummy --dtype float16 --max-model-len 4096 --gpu-memory-utilization {share} "
        "--attention-backend FLASH_ATTN --host 127.0.0.1 --port {port}"
    )
    quiet = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK")
    env: dict[str, str | None] = {"LD_PRELOAD": None, "PYTHONPATH": f"{work}/vllm/site"}
    env |= {"VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_USE_DEEP_GEMM": "0", **dict.fromkeys(quiet, "1")}
    return template, env


def start(
    work: Path,
    template: str,
    env: Mapping[str, str | None],
    share: float,
    label: str = "",
    options: Sequence[str] = (),
) -> Running:
    """Start it unless it runs. Does not wait."""
    if (known := find(work, label)) is not None:
        return known
    work.mkdir(parents=True, exist_ok=True)
    port, log = processes.free_port(), work / f"vllm{label}.log"
    command = (*shlex.split(template.format(port=port, share=share)), *options)
    variables = {**os.environ, **{name: value for name, value in env.items() if value is not None}}
    for name in (name for name, value in env.items() if value is None):
        variables.pop(name, None)
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=variables, start_new_session=True
        )
    process.returncode = 0  # it outlives us, and its object must not complain of that
    running = Running(f"http://127.0.0.1:{port}", command, process.pid, str(log), time.time())
    _state(work, label).write_bytes(msgspec.json.encode(running))
    return running


def find(work: Path, label: str = "") -> Running | None:
    """The one that was started here, if its process lives."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        running = msgspec.json.decode(_state(work, label).read_bytes(), type=Running)
        if running.pid is not None and _alive(running.pid):
            return running
    return None


def find_all(work: Path) -> dict[str, Running]:
    """By label."""
    labels = sorted(path.stem.removeprefix("vllm") for path in work.glob("vllm*.json"))
    return {label: running for label in labels if (running := find(work, label)) is not None}


def stop(work: Path) -> None:
    for label, running in find_all(work).items():
        root = psutil.Process(running.pid)
        family = [root, *root.children(recursive=True)]
        root.terminate()
        _, alive = psutil.wait_procs(family, timeout=10)
        for member in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(alive, timeout=5)
        _state(work, label).unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _state(work: Path, label: str) -> Path:
    return work / f"vllm{label}.json"
