"""The loop of one worker process: take commands, compute a step, send one frame; sleep when idle.

One thread does everything, so there is nothing to lock and nothing can overtake anything.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Protocol

from rllm.engine.engine import Engine
from rllm.engine.port import BackendFailed
from rllm.engine.types import StepRecord
from rllm.workers.frames import (
    Cancel,
    Command,
    Failed,
    Inspect,
    Inspected,
    Message,
    StepFrame,
    Stop,
    Submit,
)
from rllm.workers.worker_log import WorkerLog


class Inbox(Protocol):
    def commands(self, *, wait: bool) -> Iterator[Command]: ...

    def send(self, message: Message) -> None: ...


def serve(engine: Engine, link: Inbox, log: WorkerLog) -> int:
    """Run until told to stop or until the backend fails; returns the exit status of the process.

    Whoever waits for an answer gets one in either case: after Stop every request that is left ends as
    cancelled, after `Failed` the other side ends them.
    """
    gc.collect()
    gc.freeze()
    gc.disable()  # a full collection over every waiting prompt would be felt as a pause by every stream
    try:
        while _take_commands(engine, link, log):
            if engine.has_work:
                _step(engine, link, log)
        engine.cancel_all()
        _step(engine, link, log)
        return 0
    except BackendFailed as error:
        link.send(Failed(reason=str(error), out_of_memory=error.out_of_memory))
        return 1
    except Exception as error:  # the top of the thread: the other side must hear of it
        link.send(Failed(reason=f"{type(error).__name__}: {error}"))
        raise


def _take_commands(engine: Engine, link: Inbox, log: WorkerLog) -> bool:
    """Apply what has arrived; False when the worker is to stop."""
    if not engine.has_work:
        gc.collect(0)  # nobody is waiting; the engine itself makes no reference cycles
    for command in link.commands(wait=not engine.has_work):
        match command:
            case Submit(request=request, sent_at=sent_at):
                log.accepted(request)
                engine.submit(request, min(sent_at, time.monotonic()))
            case Cancel(request_id=request_id):
                engine.cancel(request_id)
            case Inspect():
                link.send(Inspected(engine.snapshot()))
            case Stop():
                return False
    return True


def _step(engine: Engine, link: Inbox, log: WorkerLog) -> None:
    outcome = engine.step()
    log.stepped([started.request_id for started in outcome.started], outcome.events)
    record: StepRecord | None = outcome.record
    link.send(StepFrame(events=outcome.events, step=record, started=outcome.started))
