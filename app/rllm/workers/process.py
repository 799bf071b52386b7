"""The API's handle on one worker process: start it, send commands, hear messages, know when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable

import msgspec

from rllm import background
from rllm.engine.snapshot import Snapshot
from rllm.errors import EngineError, StartError
from rllm.workers.channel import Channel
from rllm.workers.environment import worker_environment
from rllm.workers.frames import (
    OUT_OF_MEMORY,
    STUCK,
    Command,
    Failed,
    Inspected,
    LogLine,
    Message,
    Ready,
    StepFrame,
    Stop,
    WorkerSpec,
    decode_message,
    encode,
    encode_spec,
)
from rllm.workers.stderr import StderrReader

_KILL_AFTER_S = 3.0
_DUMP_S = 0.2
_CRASHES = frozenset({
    signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP,
})  # fmt: skip
"""Signals that a process brings upon itself."""


class WorkerProcess:
    """One start of one worker. A worker that died is not revived: make another `WorkerProcess`.

    ``on_frame`` is called on the event loop for every `StepFrame`, in order; ``on_exit`` exactly once, with
    the reason, after the last of them. ``on_log`` gets the worker's log lines, ``on_snapshot`` the answer to
    each `Inspect`.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        on_frame: Callable[[StepFrame], None],
        on_exit: Callable[[EngineError], None],
        on_log: Callable[[LogLine], None],
        on_snapshot: Callable[[Snapshot], None],
    ) -> None:
        self.spec = spec
        self._channel: Channel | None = None
        self._on_frame = on_frame
        self._on_exit = on_exit
        self._on_log = on_log
        self._on_snapshot = on_snapshot
        self._process: asyncio.subprocess.Process | None = None
        self._stderr: StderrReader | None = None
        self._reader: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self._failure: Failed | None = None
        self._stopping = False

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def was_out_of_memory(self) -> bool:
        """Whether that is what ended it."""
        if self._failure is not None:
            return self._failure.out_of_memory
        return self._process is not None and self._process.returncode == OUT_OF_MEMORY

    @property
    def was_stuck(self) -> bool:
        """Its first computation took longer than it may."""
        return self._process is not None and self._process.returncode == STUCK

    @property
    def crashed_at_start(self) -> bool:
        """Whether it ended before it was ready in a way that other kernels may spare it: it computed nonsense
        or for ever, or crashed. Being killed by somebody else is no reason to change anything."""
        if self._failure is not None:
            return self._failure.miscomputed
        status = self._process.returncode if self._process else None
        was_ready = self._ready.done() and self._ready.exception() is None
        return not was_ready and (status == STUCK or (status is not None and -status in _CRASHES))

    async def start(self, timeout_s: float) -> Ready:
        """Start the process and wait until it has loaded its model.

        Raises:
            StartError: it could not start; the message is its own.
        """
        try:
            await self._spawn()
        except OSError as error:  # no descriptor, no process or no memory left
            self._close_ends()
            raise StartError(f"{self.spec.name}: no process can be started: {error.strerror}") from error
        self._reader = background.start(self._read(), name=f"worker-{self.spec.name}")
        try:
            return await asyncio.wait_for(asyncio.shield(self._ready), timeout_s)
        except TimeoutError:
            await self.stop(grace_s=0)
            raise StartError(f"{self.spec.name}: not ready after {timeout_s:.0f} s") from None

    async def _spawn(self) -> None:
        self._channel = channel = Channel(self._receive)
        self._stderr = stderr = StderrReader(lambda text: self._on_log(LogLine("error", text)))
        self.spec = msgspec.structs.replace(self.spec, fd=channel.fd)
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "rllm.workers",
            stdin=asyncio.subprocess.PIPE,
            stderr=stderr.fd,
            pass_fds=(channel.fd,),
            env={**worker_environment(os.environ), **self.spec.env},
            start_new_session=True,  # a signal to the server's group or its terminal is for the server
        )
        stderr.started()
        channel.started()
        if process.stdin is None:
            raise RuntimeError("the worker was started without a pipe")
        process.stdin.write(encode_spec(self.spec) + b"\n")

    def _close_ends(self) -> None:
        if self._stderr is not None:
            self._stderr.close()
        if self._channel is not None:
            self._channel.close()

    def send(self, command: Command) -> None:
        """Never blocks; a command to a dead worker is lost, and `on_exit` has been or will be called."""
        if self._channel is not None:
            self._channel.send(encode(command))

    def dump_and_kill(self) -> None:
        """Let it print where every thread stands, then end it; a stopped one prints nothing."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGUSR1)
            asyncio.get_running_loop().call_later(_DUMP_S, self.kill)

    def kill(self) -> None:
        """End it at once, as the watchdog does. `on_exit` follows."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def stop(self, grace_s: float = _KILL_AFTER_S) -> None:
        """End it: after the current step if that comes within ``grace_s``, else by force.

        One that is still loading has no step to end, and may not even listen yet.
        """
        self._stopping = True
        if not self._ready.done():
            grace_s = 0
        if self._process is not None and self._process.returncode is None:
            if grace_s > 0:
                self.send(Stop())
            try:
                await asyncio.wait_for(self._process.wait(), max(grace_s, 0.01))
            except TimeoutError:
                self.kill()
        if self._reader is not None:
            await self._reader
        self._close_ends()

    async def _read(self) -> None:
        """Deliver messages until the process ends, then say so. Never leaves anybody waiting."""
        if self._process is None or self._channel is None:
            raise RuntimeError("not started")
        self._channel.listen()
        try:
            await self._process.wait()
            self._channel.finish()
        finally:
            if self._stderr is not None:
                self._stderr.close()
            error = EngineError(self._reason())
            if not self._ready.done():
                self._ready.set_exception(StartError(str(error)))
                self._ready.exception()  # seen: whoever waited for it may have been told to stop
            self._on_exit(error)

    def _receive(self, data: bytes) -> None:
        try:
            self._deliver(decode_message(data))
        except Exception:
            self.kill()  # whoever waits for what was lost gets an answer: `on_exit` follows
            raise

    def _deliver(self, message: Message) -> None:
        match message:
            case StepFrame():
                self._on_frame(message)
            case Inspected(snapshot=snapshot):
                self._on_snapshot(snapshot)
            case Ready():
                if not self._ready.done():
                    self._ready.set_result(message)
            case Failed():
                self._failure = message
            case LogLine():
                self._on_log(message)

    def _reason(self) -> str:
        if self._failure is not None:
            return self._failure.reason
        if self._stopping:
            return f"{self.spec.name} was stopped"
        status = self._process.returncode if self._process else None
        if status == OUT_OF_MEMORY:
            return f"{self.spec.name} had no memory left on its GPU"
        if status == STUCK:
            return f"{self.spec.name} did not end its first computation"
        return f"{self.spec.name} {_end(status)}"


def _end(status: int | None) -> str:
    if status is None or status >= 0:
        return f"exited with {status}"
    names = {number.value: number.name for number in signal.Signals}
    return f"was killed by signal {-status} ({names.get(-status, 'unnamed')})"
