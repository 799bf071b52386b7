"""Life of a server under measurement: started, waited for, asked who it is, stopped."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from rllm_bench.load.direct import open_url
from rllm_bench.records.cells import Settings
from rllm_bench.targets import compute_path, processes
from rllm_bench.targets.base import Launch, Target


class ServerFailed(Exception):
    """It did not start, or died. The message ends with the last lines of its log."""


@dataclass(frozen=True, slots=True)
class Server:
    target: Target
    launch: Launch
    pid: int | None
    start_s: float
    log: Path
    compute_path: dict[str, str] = field(default_factory=dict)
    gpu_bytes: int | None = None
    """By how much the card's memory grew while it started."""

    def ended(self) -> str | None:
        """Why nobody can be asked any more; None while it lives, or where we do not know its process."""
        if self.pid is None or processes.is_alive(self.pid):
            return None
        return f"it has ended:\n{processes.tail(self.log)}"

    def describe(self) -> dict[str, Any]:
        model = self.target.model
        return {
            "engine": self.target.engine,
            "variant": self.target.variant,
            "version": self.target.version(),
            "model": str(model) if model else None,
            "model_bytes": _size(model),
            "model_name": self.launch.endpoint.model,
            "command": self.launch.command,
            "env": self.launch.env,
            "base_url": self.launch.endpoint.base_url if self.launch.command is None else None,
            "body": self.launch.endpoint.body,
            "notes": list(self.launch.notes),
            "start_s": round(self.start_s, 2),
            "compute_path": self.compute_path,
            "gpu_bytes": self.gpu_bytes,
        }


def _size(model: Path | None) -> int | None:
    if model is None or not model.exists():
        return None
    if model.is_file():
        return model.stat().st_size
    return sum(path.stat().st_size for path in model.glob("*.safetensors"))


@contextlib.contextmanager
def running(target: Target, settings: Settings, log: Path, end_tokens: tuple[int, ...]) -> Iterator[Server]:
    """The server while it is up. On every way out it is stopped, and so are its children."""
    launch = target.launch(settings, processes.free_port(), end_tokens)
    began = time.monotonic()
    if launch.command is None:
        _wait_ready(launch, None, log)
        url = launch.endpoint.base_url
        yield Server(target, _named(launch), processes.listener(url), 0.0, log, compute_path.read(url, ""))
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as header:
        header.write(f"\n$ {' '.join(launch.command)}\n")
    said_before = log.stat().st_size
    process = processes.start(launch.command, log=log, env=launch.env)
    try:
        _wait_ready(launch, process, log)
        start_s = time.monotonic() - began
        said = log.read_bytes()[said_before:].decode("utf-8", "replace")
        path = compute_path.read(launch.endpoint.base_url, said)
        yield Server(target, _named(launch), process.pid, start_s, log, path)
    finally:
        processes.stop(process)


def _wait_ready(launch: Launch, process: subprocess.Popen[str] | None, log: Path) -> None:
    deadline = time.monotonic() + launch.ready_timeout_s
    url = f"{launch.endpoint.base_url}{launch.ready_path}"
    while True:
        if process is not None and process.poll() is not None:
            raise ServerFailed(f"exited with {process.returncode} while starting:\n{processes.tail(log)}")
        with contextlib.suppress(OSError, ValueError, LookupError):
            with open_url(url, 5) as response:
                if response.status == 200 and _model_name(launch):
                    return
        if time.monotonic() > deadline:
            raise ServerFailed(
                f"not ready after {launch.ready_timeout_s:.0f} s: {url}\n{processes.tail(log)}"
            )
        time.sleep(0.2)


def _named(launch: Launch) -> Launch:
    """With the model name that the server itself lists first, unless one was given."""
    if launch.endpoint.model:
        return launch
    return replace(launch, endpoint=msgspec.structs.replace(launch.endpoint, model=_model_name(launch)))


def _model_name(launch: Launch) -> str:
    """The one that was given, or the first that the server lists; LookupError while it lists none."""
    if launch.endpoint.model:
        return launch.endpoint.model
    request = urllib.request.Request(f"{launch.endpoint.base_url}/v1/models", headers=launch.endpoint.headers)
    with open_url(request, 10) as response:
        return str(json.load(response)["data"][0]["id"])
