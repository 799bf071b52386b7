"""Real server processes on this machine: start them, look into them, end them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import psutil

LOGS = "CHAOS_LOGS"
"""In the environment: a folder for the servers' logs, where they stay."""
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Footprint:
    """What the server and its workers hold at one moment."""

    rss_mib: float
    num_fds: int
    num_threads: int


class ServerProcess:
    """One server, its log in a file. `rss`, `fds` and `threads` are of the whole family."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self._family = psutil.Process(process.pid)

    @property
    def worker_pids(self) -> list[int]:
        return sorted(_workers(self._family))

    def footprint(self) -> Footprint:
        rss = fds = threads = 0
        for process in (self._family, *self._family.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                rss += _private_bytes(process)
                fds += process.num_fds()
                threads += process.num_threads()
        return Footprint(rss / 2**20, fds, threads)

    async def wait_ready(self, http: aiohttp.ClientSession, timeout_s: float = 120) -> None:
        async with asyncio.timeout(timeout_s):
            while True:
                if self.process.returncode is not None:
                    raise RuntimeError(f"the server ended with {self.process.returncode}; see {self.log}")
                with contextlib.suppress(aiohttp.ClientError):
                    async with http.get(self.url + "/health") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(0.1)

    async def instances(self, http: aiohttp.ClientSession) -> dict[str, str]:
        async with http.get(self.url + "/health/ready") as response:
            states: dict[str, str] = (await response.json())["instances"]
            return states

    async def metrics(self, http: aiohttp.ClientSession) -> list[tuple[str, dict[str, str], float]]:
        async with http.get(self.url + "/metrics") as response:
            text = await response.text()
        found = [match for line in text.splitlines() if (match := _SAMPLE.match(line))]
        return [(match[1], dict(_LABEL.findall(match[2] or "")), float(match[3])) for match in found]

    async def metric(self, http: aiohttp.ClientSession, name: str, **labels: str) -> float:
        """The sum of all samples of that name with these labels."""
        samples = await self.metrics(http)
        return sum(v for n, have, v in samples if n == name and labels.items() <= have.items())

    async def watch_footprint(self, samples: list[tuple[float, Footprint]], period_s: float) -> None:
        """Until cancelled. In a thread: it takes tens of milliseconds, in which no client may stand still."""
        while True:
            footprint = await asyncio.to_thread(self.footprint)
            samples.append((time.monotonic(), footprint))
            await asyncio.sleep(period_s)

    async def wait_idle(self, http: aiohttp.ClientSession, timeout_s: float = 60) -> float:
        """Until nothing is in flight; how long that took, or -1."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() - began < timeout_s:
            if await self.metric(http, "rllm_sequences_in_flight") == 0:
                return loop.time() - began
            await asyncio.sleep(0.2)
        return -1.0

    async def terminate(self, timeout_s: float = 60) -> int:
        """SIGTERM; the exit status."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(timeout_s):
            return await self.process.wait()


def _private_bytes(process: psutil.Process) -> int:
    """Without the pages of mapped model files, which the system may drop at any time."""
    try:
        info = process.memory_full_info()
        return int(info.uss)
    except psutil.AccessDenied:
        return int(process.memory_info().rss)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def rllm(
    http: aiohttp.ClientSession,
    *options: object,
    port: int = 0,
    env: Mapping[str, str] | None = None,
    wrap: Sequence[str] = (),
    stderr: int | None = None,
) -> AsyncIterator[ServerProcess]:
    """A real rllm-serve, ready. Ended by force at the end if it still runs.

    Without a prefix store, unless ``options`` say otherwise: it fills up on purpose, which would hide leaks.
    ``env`` is added to the environment, ``wrap`` is a command that starts the server's, and ``stderr`` a
    descriptor for the log instead of its file.
    """
    options = ("--prefix-store-mb", 0, *options)
    port = port or free_port()
    command = [*wrap, sys.executable, "-c", "from rllm.cli import main; main()", "--port", str(port)]
    command += ["--log-format", "json", *map(str, options)]
    async with _running(command, port, env=env, stderr=stderr) as server:
        await server.wait_ready(http)
        yield server


@asynccontextmanager
async def llama_server(
    http: aiohttp.ClientSession, binary: Path | None, model: Path, slots: int, ctx_per_slot: int
) -> AsyncIterator[ServerProcess]:
    """llama-server as it comes, with the same slots and context; built from source or from xllamacpp."""
    port = free_port()
    options = ["--model", model, "--port", port, "--parallel", slots, "--ctx-size", slots * ctx_per_slot]
    start: list[object] = (
        [binary, "--host", "127.0.0.1", "--no-webui"]
        if binary
        else [sys.executable, "-m", "rllm_bench.targets.xllamacpp_server"]
    )
    async with _running([str(part) for part in [*start, *options]], port) as server:
        await server.wait_ready(http)
        yield server


@asynccontextmanager
async def _running(
    command: Sequence[str], port: int, *, env: Mapping[str, str] | None = None, stderr: int | None = None
) -> AsyncIterator[ServerProcess]:
    folder = os.environ.get(LOGS)
    handle, name = tempfile.mkstemp(prefix="chaos-", suffix=".log", dir=folder)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=handle,
            stderr=handle if stderr is None else stderr,
            stdin=asyncio.subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
        )
    finally:
        os.close(handle)
    server = ServerProcess(process, port, Path(name))
    try:
        yield server
    finally:
        await _end(process)
    if folder is None:  # what went wrong is still to be read there, otherwise
        server.log.unlink()


def _workers(family: psutil.Process) -> Iterator[int]:
    """Not those that render chat templates."""
    for child in family.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if "rllm.workers" in child.cmdline():
                yield child.pid


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    family = psutil.Process(process.pid)
    children = family.children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(15):
            await process.wait()
    except TimeoutError:
        for each in (family, *children):
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        await process.wait()
