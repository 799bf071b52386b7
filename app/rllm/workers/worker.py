"""The loop of one worker process: take commands, compute a step, send one frame; sleep when idle.

One thread does everything, so there is nothing to lock and nothing can overtake anything.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Protocol

from rllm.engine.engine import Engine, Outcome
from rllm.engine.port import BackendFailed
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
from rllm.workers.preparing import Preparing
from rllm.workers.worker_log import WorkerLog


class Inbox(Protocol):
    def commands(self, *, wait: bool) -> Iterator[Command]: ...

    def send(self, message: Message) -> None: ...


class Outbox:
    """What a step brought, until it is sent: on a GPU while the next step is computed there."""

    def __init__(self, link: Inbox, log: WorkerLog) -> None:
        self._link = link
        self._log = log
        self._held: Outcome | None = None

    def put(self, outcome: Outcome) -> None:
        self.flush()
        self._held = outcome

    def flush(self) -> None:
        if (outcome := self._held) is not None:
            self._held = None
            self._log.stepped([started.request_id for started in outcome.started], outcome.events)
            self._link.send(StepFrame(events=outcome.events, step=outcome.record, started=outcome.started))


def serve(engine: Engine, link: Inbox, log: WorkerLog) -> int:
    """Run until told to stop or until the backend fails; returns the exit status of the process.

    Whoever waits for an answer gets one in either case: after Stop every request that is left ends as
    cancelled, after `Failed` the other side ends them.
    """
    outbox, preparing = Outbox(link, log), Preparing(engine)
    gc.collect()
    gc.freeze()
    gc.disable()  # a full collection over every waiting prompt would be felt as a pause by every stream
    try:
        while _take_commands(engine, link, log, outbox, preparing):
            if preparing:
                preparing.release(wait_a_little=not engine.has_work)
            if engine.has_work:
                _step(engine, outbox)
        preparing.cancel_all()
        engine.cancel_all()
        _step(engine, outbox)
        outbox.flush()
        return 0
    except BackendFailed as error:
        outbox.flush()
        link.send(Failed(reason=str(error), out_of_memory=error.out_of_memory))
        return 1
    except Exception as error:  # the top of the thread: the other side must hear of it
        outbox.flush()
        link.send(Failed(reason=f"{type(error).__name__}: {error}"))
        raise


def _take_commands(engine: Engine, link: Inbox, log: WorkerLog, outbox: Outbox, preparing: Preparing) -> bool:
    """Apply what has arrived; False when the worker is to stop. In debug runs an idle engine is checked."""
    if not engine.has_work:
        gc.collect(0)  # nobody is waiting; the engine itself makes no reference cycles
        if log.is_debug:
            engine.check()
    for command in link.commands(wait=not (engine.has_work or preparing)):
        match command:
            case Submit(requests=requests, sent_at=sent_at):
                for request in requests:
                    log.accepted(request)
                    arrived_at = min(sent_at, time.monotonic())
                    if request.constraint is None:
                        engine.submit(request, arrived_at)
                    else:
                        preparing.submit(request, request.constraint, arrived_at)
            case Cancel(request_id=request_id):
                preparing.cancel(request_id)
                engine.cancel(request_id)
            case Inspect():
                outbox.flush()
                link.send(Inspected(engine.snapshot()))
            case Stop():
                return False
    return True


def _step(engine: Engine, outbox: Outbox) -> None:
    outcome = engine.step(outbox.flush)
    outbox.put(outcome)
    if not (engine.overlaps and engine.has_work):
        outbox.flush()
