"""One process that renders: started, asked, and killed when it takes too much of the processor."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time

import msgspec

from rllm.api.text.rendering.frames import HEAD, Answer, Started, decode_answer

_MACHINE_TIMEOUT_S = 30.0
"""Until the process is there, or was let run for as long as it may: a busy machine may take that long."""
_READ = 256 * 1024
LITTLE = 4096
"""Bytes of an answer without a prompt."""
_INHERITED = ("PATH", "PYTHONPATH", "TZ", "LANG", "LC_ALL", "LC_TIME", "SYSTEMROOT")
"""Of the environment, which may hold keys."""


class Gone(Exception):
    """The process ended, or answered what it cannot mean."""


class TooLong(Exception):
    """The process used as much of the processor as it may."""


class RenderingProcess:
    """One start of ``python -m rllm.api.text.rendering``. Not revived: make another."""

    def __init__(self) -> None:
        """
        Raises:
            OSError: no descriptor, memory or process is left.
        """
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        try:
            # -P: not from the folder that the server was started in. A group of its own: signals to the
            # server's are not for it. Not a session: Linux schedules sessions against each other (autogroup),
            # and on a busy machine each rendering would wait for milliseconds to be let run.
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "rllm.api.text.rendering"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _INHERITED if name in os.environ},
                process_group=0,
            )
        except OSError:
            self._socket.close()
            raise
        finally:
            theirs.close()
        self._loop = asyncio.get_running_loop()
        self._heard = bytearray()
        self._most = LITTLE
        self.is_over = False
        self._answer: asyncio.Future[Answer] = self._loop.create_future()
        self._loop.add_reader(self._socket, self._read)  # once: each change of it is a system call

    async def ask(self, frame: bytes, most: int, cpu_s: float) -> Answer:
        """
        Raises:
            TooLong: no answer within ``cpu_s`` of the processor's time; kill it.
            TimeoutError: the machine did not let it run that long; kill it.
            Gone, OSError: it is over.
        """
        self._most, self._answer = most, self._loop.create_future()
        now = self._loop.time()
        self._watch(self._cpu_s() + cpu_s, now + cpu_s, now + _MACHINE_TIMEOUT_S)
        try:
            await self._send(frame)
            return await self._answer
        finally:
            self._timer.cancel()

    def _watch(self, cpu_limit: float, when: float, latest: float) -> None:
        """Look at ``when`` whether it has used ``cpu_limit`` of its clock, and give up at ``latest``."""
        self._timer = self._loop.call_at(when, self._look, cpu_limit, latest)

    def _look(self, cpu_limit: float, latest: float) -> None:
        now, left = self._loop.time(), cpu_limit - self._cpu_s()
        if self._answer.done():
            return
        if left <= 0:
            self._answer.set_exception(TooLong())
        elif now >= latest:
            self._answer.set_exception(TimeoutError())
        else:
            self._watch(cpu_limit, min(now + left, latest), latest)

    async def started(self) -> None:
        """Wait until it is there. Raises as `ask`."""
        async with asyncio.timeout(_MACHINE_TIMEOUT_S):
            if not isinstance(await self._answer, Started):
                raise Gone("it is not what was started")

    def _cpu_s(self) -> float:
        """Seconds of the processor so far, by Linux's clock of that process: clock_getcpuclockid(3)."""
        return time.clock_gettime(~self._child.pid << 3 | 2)

    async def _send(self, frame: bytes) -> None:
        try:
            sent = self._socket.send(frame)
        except BlockingIOError:
            sent = 0
        if sent < len(frame):
            async with asyncio.timeout(_MACHINE_TIMEOUT_S):
                await self._loop.sock_sendall(self._socket, memoryview(frame)[sent:])

    def _read(self) -> None:
        try:
            got = self._socket.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            got = b""
        self._heard += got
        end = HEAD + int.from_bytes(self._heard[:HEAD], "little") if len(self._heard) >= HEAD else HEAD
        if not got:
            self._end("it ended")
        elif self._answer.done() or max(end, len(self._heard)) > HEAD + self._most:
            self._end("it says too much")
        elif end == len(self._heard) > HEAD:
            try:
                self._answer.set_result(decode_answer(memoryview(self._heard)[HEAD:]))
            except msgspec.DecodeError as error:
                self._end(f"it says what it cannot mean: {error}")
            self._heard = bytearray()

    def _end(self, reason: str) -> None:
        """Whoever waits for an answer hears that there will be none; whoever asks later, that it is gone."""
        self.is_over = True
        self._loop.remove_reader(self._socket)
        if not self._answer.done():
            self._answer.set_exception(Gone(reason))

    def kill(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._child.kill()

    def reap(self) -> None:
        """After `kill`; blocks for as long as the kernel takes to free its memory."""
        self._child.wait()
