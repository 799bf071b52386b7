"""Entry of a worker process: ``python -m rllm.workers``, its specification on standard input.

The only place that picks a backend. Standard input stays open: when it ends, the API process is gone
(however it died) and the worker leaves too.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rllm.engine.port import Backend
from rllm.errors import Miscomputed, OutOfMemory, StartError
from rllm.workers.frames import OUT_OF_MEMORY, STUCK, Failed, Ready, WorkerSpec, decode_spec
from rllm.workers.worker_log import WorkerLog

if TYPE_CHECKING:
    from rllm.workers.link import Link

_FOR_THE_SERVER = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGALRM,
    signal.SIGUSR2,
)
"""Operators and systemd may send them to every process. The server acts, and ends this one in its time."""


def main() -> int:
    faulthandler.enable()
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # ggml starts gdb, which keeps a dead worker for 8 s
    faulthandler.register(signal.SIGUSR1)  # the watchdog asks for it before it kills
    for number in _FOR_THE_SERVER:
        signal.signal(number, signal.SIG_IGN)
    spec = decode_spec(_read_line())
    threading.Thread(target=_leave_with_parent, name="parent-watch", daemon=True).start()
    if spec.llama is not None:
        import rllm.backends.llama  # noqa: F401  before numpy: see its `lib`
    from rllm.workers.link import Link

    link = Link(spec.fd)
    try:
        return _run(spec, link)
    except StartError as error:
        failed = Failed(
            reason=str(error),
            at_start=True,
            out_of_memory=error.code == OutOfMemory.code,
            miscomputed=error.code == Miscomputed.code,
        )
        link.send(failed)
        return 1
    finally:
        link.close()


def _run(spec: WorkerSpec, link: Link) -> int:
    log = WorkerLog(link.send, spec.log_level)
    backend = _backend(spec, log.native)
    try:
        # late, so that the native library is loaded before numpy whatever the engine's imports become
        from rllm.engine.build import build_scheduler
        from rllm.engine.engine import Engine
        from rllm.workers.worker import serve

        options = spec.scheduler
        scheduler = build_scheduler(
            backend.info,
            backend.vocabulary,
            max_step_tokens=options.max_step_tokens,
            itl_target_s=options.itl_target_s,
            max_pause_s=options.max_pause_s,
            prefix_cache=options.prefix_cache,
            speculative_tokens=options.speculative_tokens,
            stored=backend.stored(),
        )
        link.send(Ready(info=backend.info, pid=os.getpid()))
        return serve(Engine(scheduler, backend, time.monotonic), link, log)
    finally:
        backend.close()


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """End the process, with the stacks of its threads on standard error, if the time passes inside."""

    def give_up() -> None:
        faulthandler.dump_traceback()
        os._exit(STUCK)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _backend(spec: WorkerSpec, log: Callable[[str, str], None]) -> Backend:
    if spec.llama is not None:
        from rllm.backends.llama import lib  # first: it must be loaded before numpy
        from rllm.backends.llama.backend import LlamaBackend

        def watch(level: str, text: str) -> None:
            if lib.is_fatal_shortage(level, text):
                print(f"{spec.name}: {text}", file=sys.stderr, flush=True)
                os._exit(OUT_OF_MEMORY)  # ggml aborts next, and a signal would not say why
            log(level, text)

        lib.send_log_to(watch)
        return LlamaBackend(spec.model_path, spec.llama, within=_within)
    if spec.fake is not None:
        from rllm.backends.fake import FakeBackend

        return FakeBackend(spec.fake, within=_within)
    raise StartError(f"worker {spec.name}: no backend is named")


def _read_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(0, 65536)
        if not data:
            break
        line += data
    return line


def _leave_with_parent() -> None:
    while os.read(0, 4096):  # not through sys.stdin, whose lock would outlive the interpreter
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
