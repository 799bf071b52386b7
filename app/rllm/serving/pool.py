"""All instances of all models, behind the one door that the API knows."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rllm.engine.port import Vocabulary
from rllm.engine.types import EngineRequest
from rllm.errors import NotFound, Overloaded
from rllm.serving.admission import Limits, check_fits, check_load
from rllm.serving.instance import Instance
from rllm.serving.observer import InstanceState, Observer
from rllm.serving.service import Health, ServedModel
from rllm.serving.stream import Stream
from rllm.workers.frames import WorkerSpec


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A model to serve: its name, where its vocabulary comes from, and one specification per instance."""

    id: str
    aliases: tuple[str, ...]
    load_vocabulary: Callable[[], Vocabulary]
    workers: tuple[WorkerSpec, ...]


class Pool:
    """Implements `Service`. Everything happens on the event loop that called `start`."""

    def __init__(
        self,
        plans: Sequence[ModelPlan],
        limits: Limits,
        observer: Observer,
        *,
        start_timeout_s: float = 600.0,
    ) -> None:
        self._plans = tuple(plans)
        self._limits = limits
        self._observer = observer
        self._instances = {
            plan.id: [Instance(plan.id, spec, observer, start_timeout_s) for spec in plan.workers]
            for plan in plans
        }
        self._models: dict[str, ServedModel] = {}
        self._names: dict[str, str] = {}
        self._draining = False

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load everything, all instances at once.

        Raises:
            StartError: a model cannot be served. What had been started is stopped again.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for plan in self._plans:
                    group.create_task(self._start_model(plan))
        except BaseExceptionGroup as errors:
            await self.stop(drain_s=0)
            raise errors.exceptions[0] from None

    async def _start_model(self, plan: ModelPlan) -> None:
        instances = self._instances[plan.id]
        vocabulary, infos = await asyncio.gather(
            asyncio.to_thread(plan.load_vocabulary),
            asyncio.gather(*(instance.start() for instance in instances)),
        )
        model = ServedModel(plan.id, plan.aliases, int(time.time()), infos[0], vocabulary)
        self._models[plan.id] = model
        for name in (plan.id, *plan.aliases):
            self._names.setdefault(name, plan.id)

    async def stop(self, drain_s: float) -> None:
        """Accept nothing more, let what runs finish for at most ``drain_s``, end the workers."""
        self._draining = True
        everything = [instance for instances in self._instances.values() for instance in instances]
        drained = asyncio.gather(*(instance.drained() for instance in everything))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(drained, drain_s)
        await asyncio.gather(*(instance.stop() for instance in everything))

    # --- service --------------------------------------------------------------------------------

    def models(self) -> list[ServedModel]:
        return [self._models[plan.id] for plan in self._plans if plan.id in self._models]

    def model(self, name: str | None) -> ServedModel:
        models = self.models()
        if name is None and models:
            return models[0]
        found = self._names.get(name or "")
        if found is None and len(models) < len(self._plans):
            raise Overloaded("the models are still loading", code="model_loading", retry_after_s=2.0)
        if found is None:
            there = ", ".join(model.id for model in models) or "none yet"
            raise NotFound(f"model {name!r} is not served here; there is: {there}", param="model")
        return self._models[found]

    def submit(self, model: ServedModel, requests: list[EngineRequest]) -> list[Stream]:
        for request in requests:
            check_fits(len(request.prompt), request.max_tokens, model.info.ctx_per_slot)
        try:
            instance = self._choose(model)
            tokens = sum(len(request.prompt) for request in requests)
            check_load(instance.load, self._limits, len(requests), tokens, instance.rate)
        except Overloaded as error:
            self._observer.on_rejected(model.id, error.code or "")
            raise
        return [instance.submit(request) for request in requests]

    def _choose(self, model: ServedModel) -> Instance:
        if self._draining:
            raise Overloaded("the server is shutting down", retry_after_s=1.0)
        ready = [i for i in self._instances[model.id] if i.state is InstanceState.READY]
        if not ready:
            raise Overloaded(f"no instance of {model.id} is ready", retry_after_s=2.0)
        return min(
            ready, key=lambda instance: (instance.load.pending_prompt_tokens, instance.num_outstanding)
        )

    def health(self) -> Health:
        instances = [instance for several in self._instances.values() for instance in several]
        states = tuple((instance.name, instance.state.value) for instance in instances)
        if self._draining:
            return Health(False, "draining", states)
        if len(self._models) < len(self._plans):
            return Health(False, "loading", states)
        for plan in self._plans:
            if not any(i.state is InstanceState.READY for i in self._instances[plan.id]):
                return Health(False, "no healthy instance", states)
        return Health(True, "ok", states)
