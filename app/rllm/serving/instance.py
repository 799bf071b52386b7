"""One instance of a model: a worker process, replaced when it dies, and the streams that depend on it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass

from rllm.engine.types import EngineRequest, FinishReason, ModelInfo
from rllm.errors import EngineError, StartError
from rllm.serving.admission import DrainRate, Load
from rllm.serving.observer import InstanceState, Observer
from rllm.serving.stream import Stream
from rllm.workers.frames import Cancel, LogLine, StepFrame, Submit, WorkerSpec
from rllm.workers.process import WorkerProcess

_FIRST_PAUSE_S = 0.2
_MAX_PAUSE_S = 30.0
_GOOD_AFTER_S = 60.0
"""A worker that lived that long was not broken from the start: the next pause is the first again."""


@dataclass(slots=True)
class _Outstanding:
    request: EngineRequest
    stream: Stream
    accepted_at: float
    last_token_at: float | None = None


class Instance:
    """Lives on the event loop. `start` once, `stop` once; between them it keeps a worker running."""

    def __init__(self, model: str, spec: WorkerSpec, observer: Observer, start_timeout_s: float) -> None:
        self.model = model
        self.name = spec.name
        self.state = InstanceState.LOADING
        self.info: ModelInfo | None = None
        self.rate = DrainRate()
        self._spec = spec
        self._observer = observer
        self._start_timeout_s = start_timeout_s
        self._worker: WorkerProcess | None = None
        self._outstanding: dict[str, _Outstanding] = {}
        self._pending_prompt_tokens = 0
        self._restart: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def load(self) -> Load:
        info = self.info
        if info is None:
            raise RuntimeError(f"{self.name} has not loaded its model")
        return Load(info.slots, info.ctx_per_slot, len(self._outstanding), self._pending_prompt_tokens)

    @property
    def num_outstanding(self) -> int:
        return len(self._outstanding)

    @property
    def pid(self) -> int:
        return self._worker.pid if self._worker else 0

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> ModelInfo:
        """
        Raises:
            StartError: the worker could not load the model. It is not tried again.
        """
        try:
            return await self._launch()
        except StartError as error:
            self._change(InstanceState.FAILED, str(error))
            raise

    async def _launch(self) -> ModelInfo:
        worker = WorkerProcess(
            self._spec, on_frame=self._on_frame, on_exit=self._on_exit, on_log=self._on_log
        )
        self._worker = worker
        ready = await worker.start(self._start_timeout_s)
        self.info = ready.info
        self._observer.on_ready(self.model, self.name, ready.info, ready.pid)
        self._change(InstanceState.READY, "")
        return ready.info

    async def _relaunch(self) -> None:
        """Try until it works, with growing pauses; jitter keeps several instances from starting at once."""
        pause_s = _FIRST_PAUSE_S
        while True:
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))
            with contextlib.suppress(StartError):
                await self._launch()
                return
            pause_s = min(_MAX_PAUSE_S, pause_s * 2)

    async def drained(self) -> None:
        """Wait until nothing is outstanding."""
        await self._idle.wait()

    async def stop(self) -> None:
        """End the worker; whoever still waits gets an error."""
        self._change(InstanceState.STOPPED, "")
        if self._restart is not None:
            self._restart.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._restart
        if self._worker is not None:
            await self._worker.stop()

    def _change(self, state: InstanceState, reason: str) -> None:
        if state is not self.state:
            self.state = state
            self._observer.on_instance(self.model, self.name, state, reason)

    # --- requests -------------------------------------------------------------------------------

    def submit(self, request: EngineRequest) -> Stream:
        """Hand a request to the worker. The instance must be READY and the request admitted."""
        if self._worker is None or self.state is not InstanceState.READY:
            raise RuntimeError(f"{self.name} is {self.state.value}")
        now = time.monotonic()
        stream = Stream(request.id, self._cancel)
        self._outstanding[request.id] = _Outstanding(request, stream, now)
        self._pending_prompt_tokens += len(request.prompt)
        self._idle.clear()
        self._worker.send(Submit(request=request, sent_at=now))
        self._observer.on_accepted(self.model, self.name, request)
        return stream

    def _cancel(self, request_id: str) -> None:
        """The client does not want it any more. It counts as outstanding until the worker has let go."""
        if request_id in self._outstanding and self._worker is not None:
            self._worker.send(Cancel(request_id=request_id))

    def _on_frame(self, frame: StepFrame) -> None:
        now = time.monotonic()
        for event in frame.events:
            entry = self._outstanding.get(event.request_id)
            if entry is None:
                continue
            if event.tokens:
                self._note_token(entry, now)
            if event.finish is not None:
                self._remove(entry, now)
                self._observer.on_finished(
                    self.model, self.name, entry.request, event, now - entry.accepted_at
                )
            if event.finish is FinishReason.ERROR:
                entry.stream.fail(EngineError(event.error or "the request failed"))
            else:
                entry.stream.put(event)
        if frame.step is not None:
            self._observer.on_step(self.model, self.name, frame.step)

    def _note_token(self, entry: _Outstanding, now: float) -> None:
        if entry.last_token_at is None:
            self._pending_prompt_tokens -= len(entry.request.prompt)
            self._observer.on_first_token(self.model, self.name, now - entry.accepted_at)
        else:
            self._observer.on_token_gap(self.model, self.name, now - entry.last_token_at)
        entry.last_token_at = now

    def _remove(self, entry: _Outstanding, now: float) -> None:
        del self._outstanding[entry.request.id]
        if entry.last_token_at is None:
            self._pending_prompt_tokens -= len(entry.request.prompt)
        self.rate.finished(now, still_busy=bool(self._outstanding))
        if not self._outstanding:
            self._idle.set()

    def _on_exit(self, error: EngineError) -> None:
        """The worker is gone: nobody waits for it any longer, and another one is started."""
        entries, self._outstanding = list(self._outstanding.values()), {}
        self._pending_prompt_tokens = 0
        self._idle.set()
        for entry in entries:
            entry.stream.fail(EngineError("the model's worker stopped while it computed this request"))
        if self.state is InstanceState.READY:
            self._change(InstanceState.RESTARTING, str(error))
            self._restart = asyncio.create_task(self._relaunch(), name=f"restart-{self.name}")

    def _on_log(self, line: LogLine) -> None:
        self._observer.on_log(self.name, line.level, line.text, line.request_id)
