"""A server to measure and its processes: started here, or one that runs already on this machine."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click
import psutil


@dataclass(frozen=True)
class Served:
    url: str
    process: psutil.Process

    def processes(self) -> dict[str, psutil.Process]:
        """The API process, its workers and what renders chat templates, in the order of their start."""
        children = sorted(self.process.children(recursive=True), key=lambda child: child.create_time())
        named = {f"{_role(child)} {number} (pid {child.pid})": child for number, child in enumerate(children)}
        return {f"api (pid {self.process.pid})": self.process, **named}

    def cpu_seconds(self) -> dict[str, float]:
        times = {name: process.cpu_times() for name, process in self.processes().items()}
        return {name: time.user + time.system for name, time in times.items()}

    def resident_bytes(self) -> dict[str, int]:
        """Without what is mapped from files: a model's pages come and go with the page cache."""
        memory = {name: process.memory_info() for name, process in self.processes().items()}
        return {name: info.rss - info.shared for name, info in memory.items()}


def _role(child: psutil.Process) -> str:
    return "worker" if "rllm.workers" in child.cmdline() else "templates"


@contextlib.contextmanager
def served(gguf: Path | None, url: str | None, *arguments: str) -> Iterator[Served]:
    """
    Raises:
        click.UsageError: neither or both of ``gguf`` and ``url``.
    """
    if (gguf is None) == (url is None):
        raise click.UsageError("give either --gguf or --url")
    if url is not None:
        yield Served(url.rstrip("/"), _listener(url))
        return
    command = [sys.executable, "-m", "rllm.cli", "--port", "0", "--log-format", "json", "--gguf", str(gguf)]
    with subprocess.Popen(
        [*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Served(_wait_until_ready(process), psutil.Process(process.pid))
        finally:
            process.send_signal(signal.SIGINT)


def _wait_until_ready(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if '"event":"ready"' in line and (match := re.search(r'"address":"([^"]+)"', line)):
            # a full pipe would stop the server
            threading.Thread(target=process.stderr.read, name="stderr", daemon=True).start()
            return match[1]
    raise click.ClickException(f"the server did not start:\n{said}")


def _listener(url: str) -> psutil.Process:
    port = urlsplit(url).port
    for connection in psutil.net_connections("tcp"):
        address = connection.laddr
        if connection.status == psutil.CONN_LISTEN and address and address.port == port and connection.pid:
            return psutil.Process(connection.pid)
    raise click.ClickException(f"no process of this machine listens at {url}")
