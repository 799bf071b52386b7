"""The processes that are timed: one for each candidate, told what to compute, one at a time."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from rllm.backends.llama.speed import Answer, Order
from rllm.backends.options import LlamaOptions

MODULE = "rllm.backends.llama.speed"


class RigFailed(Exception):
    """The options cannot be measured here: they crash, or llama.cpp refuses them."""


class Rig(Protocol):
    def ask(self, order: Order, patience_s: float) -> float:
        """Seconds that it took.

        Raises:
            RigFailed: it cannot be done, now and later.
            TimeoutError: it is not done yet; this rig cannot be asked any more.
        """
        ...

    def close(self) -> None: ...


class ProcessRig:
    def __init__(self, model: Path, options: LlamaOptions, env: Mapping[str, str] | None = None) -> None:
        """``env`` is added to the environment."""
        command = [sys.executable, "-m", MODULE, str(model), msgspec.json.encode(options).decode()]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env={**os.environ, **(env or {})}
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("started without pipes")
        self._orders, self._answers = self._process.stdin, self._process.stdout
        self._text = b""
        self._is_loaded = False

    def ask(self, order: Order, patience_s: float) -> float:
        deadline = time.monotonic() + patience_s
        if not self._is_loaded:
            self._answer(deadline)
            self._is_loaded = True
        try:
            self._orders.write(msgspec.json.encode(order) + b"\n")
            self._orders.flush()
        except OSError:
            raise RigFailed(self._end()) from None
        return self._answer(deadline)

    def _answer(self, deadline: float) -> float:
        while b"\n" not in self._text:
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([self._answers], [], [], left_s)[0]:
                raise TimeoutError
            data = os.read(self._answers.fileno(), 4096)
            if not data:
                raise RigFailed(self._end())
            self._text += data
        line, _, self._text = self._text.partition(b"\n")
        answer = msgspec.json.decode(line, type=Answer)
        if answer.error:
            raise RigFailed(answer.error)
        return answer.seconds

    def _end(self) -> str:
        status = self._process.wait()
        return f"killed by signal {-status}" if status < 0 else f"exited with {status}"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._orders.close()
        self._answers.close()
