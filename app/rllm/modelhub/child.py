"""A module of the backend run as a process of its own: it may abort, and it can be stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import IO

from rllm.errors import HubError


def events_of(module: str, order: Mapping[str, object], failed: str) -> Iterator[dict[str, int]]:
    """Run a module of the backend with an order; yields its lines as they come.

    Raises:
        HubError: it failed; the message begins with ``failed``.
    """
    with (
        TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        _child(module, json.dumps(order), log) as child,
    ):
        assert child.stdout is not None  # PIPE
        for line in child.stdout:
            yield json.loads(line)
        if child.wait() != 0:
            raise HubError(f"{failed}: {_reason(child.returncode, log)}")


@contextmanager
def _child(module: str, order: str, log: IO[str]) -> Iterator[subprocess.Popen[str]]:
    """The process that does the work. It ends when its standard input closes, so it never outlives us."""
    command = [sys.executable, "-m", module, order]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def _reason(code: int, log: IO[str]) -> str:
    """The last thing llama.cpp said, in one line. A warning is none: what came of it went on."""
    log.seek(0)
    lines = [line.strip() for line in log.read().splitlines() if line.strip()]
    said = lines[-1] if lines and not lines[-1].startswith("warning:") else "llama.cpp gives no reason"
    return f"{said} (killed by signal {-code})" if code < 0 else said
