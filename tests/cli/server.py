"""One real rllm-serve on a free port, for tests that need its processes and signals."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

COMMAND = [sys.executable, "-c", "from rllm.cli import main; main()"]


def environment() -> dict[str, str]:
    """Ours without any setting of the developer's shell, and without measuring what is fastest here."""
    ours = ("RLLM_", "OTEL_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return clean | {"RLLM_TUNE": "off", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


class RunningServer:
    """Collects the output; `wait_for` blocks until a line of it matches."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.port = 0
        self.lines: list[str] = []
        self._open: list[http.client.HTTPConnection | http.client.HTTPResponse] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._more:
                self.lines.append(line.rstrip("\n"))
                self._more.notify_all()
        with self._more:
            self.lines.append("END OF OUTPUT")
            self._more.notify_all()

    def wait_for(self, pattern: str, timeout_s: float = 60) -> re.Match[str]:
        def find() -> re.Match[str] | None:
            return next((match for line in self.lines if (match := re.search(pattern, line))), None)

        with self._more:
            self._more.wait_for(lambda: find() or "END OF OUTPUT" in self.lines, timeout_s)
            match = find()
        assert match, f"no line matches {pattern!r} in:\n" + "\n".join(self.lines)
        return match

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def get(self, path: str) -> tuple[int, bytes]:
        connection = self.connect()
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def start_stream(self, max_tokens: int) -> http.client.HTTPResponse:
        """A completion that goes on; the response's first bytes are there."""
        connection = self.connect()
        body = {"prompt": "once", "max_tokens": max_tokens, "stream": True, "ignore_eos": True}
        connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        self._open += [response, connection]
        return response

    def close_connections(self) -> None:
        for item in self._open:
            item.close()

    def workers(self) -> list[psutil.Process]:
        family = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in family if "rllm.workers" in child.cmdline()]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        code = self.process.wait(60)
        self._reader.join(10)
        return code


@contextmanager
def running(
    *arguments: str | Path, wait: bool = True, ready: str | None = None, **env: str
) -> Iterator[RunningServer]:
    """``ready``: what to wait for where there is no port."""
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", "--log-format", "json", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment() | env,
    )
    server = RunningServer(process)
    try:
        if ready is None:
            server.port = int(server.wait_for(r'"address":"https?://127\.0\.0\.1:(\d+)"')[1])
        if wait:
            server.wait_for(ready or '"event":"ready"')
        yield server
    finally:
        server.close_connections()
        children = server.workers() if process.poll() is None else []
        process.kill()
        for child in children:
            child.kill()
        server.exit_code()
        assert process.stdout is not None
        process.stdout.close()
