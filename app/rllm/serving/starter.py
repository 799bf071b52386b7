"""Starts the workers of one instance, each with what earlier starts have taught."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from rllm.backends.options import Fallback, fewer
from rllm.errors import StartError
from rllm.serving.backoff import Backoff
from rllm.serving.fallbacks import Ways
from rllm.serving.observer import Observer
from rllm.workers.frames import Ready, WorkerSpec
from rllm.workers.process import WorkerProcess


class Starter:
    """Holds the specification of the next worker: slots only become fewer, options only safer."""

    def __init__(self, model: str, spec: WorkerSpec, observer: Observer, timeout_s: float) -> None:
        self.spec = spec
        self.fallback = spec.fallback
        self._model = model
        self._observer = observer
        self._timeout_s = timeout_s
        self._backoff = Backoff()

    async def start(self, make: Callable[[WorkerSpec], WorkerProcess]) -> Ready:
        """Start workers until one has loaded its model and computed.

        Raises:
            StartError: none does.
        """
        ways = Ways(self.spec)
        while True:
            worker = make(ways.apply(self.spec))
            try:
                ready = await worker.start(self._timeout_s)
            except StartError as error:
                # A crash asks for other kernels, short memory for fewer slots; nothing helps with the rest.
                if worker.crashed_at_start:
                    self._observer.on_crash_at_start(self._model, self.spec.name, ways.words, str(error))
                    ways.failed(str(error), certain=not worker.was_stuck)
                elif not (worker.was_out_of_memory and self.give_up_slots()):
                    raise
                await worker.stop(grace_s=0)
            else:
                self._keep(ways)
                self._note_slots(ready.info.slots)
                self._backoff.succeeded(time.monotonic())
                return ready

    def pause_s(self) -> float:
        """The pause before another start: longer each time; jitter keeps several instances apart."""
        return self._backoff.pause_s(time.monotonic(), random.random())

    def _keep(self, ways: Ways) -> None:
        if (fallback := ways.fallback) is not None:
            self.spec = ways.apply(self.spec)
            self.fallback = fallback

    def give_up_slots(self) -> bool:
        """Give the next worker fewer. False: there is only one left."""
        slots = self.spec.slots
        self._note_slots(fewer(slots))
        return self.spec.slots < slots

    def _note_slots(self, slots: int) -> None:
        before = self.spec.slots
        if slots < before:
            self.spec = self.spec.with_slots(slots)
            self._observer.on_fewer_slots(self._model, self.spec.name, before, slots)

    def give_up_graphs(self, reason: str) -> None:
        """Start later workers without CUDA graphs, where nobody has chosen.

        A kernel that never ends in a replayed graph is what was seen to stop a healthy worker.
        """
        changes = {"cuda_graphs": "off"}
        if changes in self.spec.fallbacks and (spec := self.spec.with_options(changes)) != self.spec:
            self.spec = spec
            options = {**(self.fallback.options if self.fallback is not None else {}), **changes}
            self.fallback = Fallback(options=options, reason=reason, certain=False)
