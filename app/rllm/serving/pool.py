"""All models with their instances, behind the one door that the API knows."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import msgspec

from rllm.engine.port import Vocabulary
from rllm.engine.types import OPENAI_SAMPLING, EngineRequest, SamplingDefaults
from rllm.errors import NotFound, Overloaded, Refused, StartError
from rllm.serving.admission import MAX_RETRY_S, Limits, check_fits
from rllm.serving.degrade import Measures
from rllm.serving.degrading import Degrader, DegradeSettings, cap_tokens, check_level
from rllm.serving.flight import Flight
from rllm.serving.group import Group
from rllm.serving.instance import Instance, InstanceSettings
from rllm.serving.limits import KeyLimits, Limiter, Permit
from rllm.serving.observer import Observer
from rllm.serving.service import Accepted, Health, ServedModel
from rllm.serving.stream import Stream
from rllm.serving.terms import ANYBODY, Terms
from rllm.serving.timeouts import Timeouts, Times
from rllm.serving.view import ModelView
from rllm.workers.frames import WorkerSpec


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A model to serve: its name, where its vocabulary comes from, and one specification per instance."""

    id: str
    aliases: tuple[str, ...]
    load_vocabulary: Callable[[], Vocabulary]
    workers: tuple[WorkerSpec, ...]
    smaller: str | None = None
    """Another model of this server, with the same vocabulary, that answers instead under overload."""
    fallback: str | None = None
    """The same, while no instance of this one takes requests."""
    sampling: SamplingDefaults = OPENAI_SAMPLING


@dataclass(frozen=True, slots=True)
class PoolSettings:
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    instance: InstanceSettings = InstanceSettings()
    degrade: DegradeSettings = DegradeSettings()
    keys: dict[str, KeyLimits] = field(default_factory=dict)
    """Limits by key name; a key that is not here has none."""
    share_prefixes: bool = False
    """Computed prompts are reused across keys."""
    require_all: bool = False
    """A model that cannot be started ends the server, not only itself."""


class Pool:
    """Implements `Service`. Everything happens on the event loop that called `start`."""

    def __init__(self, plans: Sequence[ModelPlan], settings: PoolSettings, observer: Observer) -> None:
        self._plans = {plan.id: plan for plan in plans}
        self._observer = observer
        self._limiter = Limiter(settings.keys, time.monotonic)
        self._share_prefixes = settings.share_prefixes
        self._groups = {plan.id: self._make_group(plan, settings) for plan in plans}
        self._degraders = {
            plan.id: Degrader(
                settings.degrade,
                lambda group=self._groups[plan.id]: group.utilization,  # type: ignore[misc]
                lambda level, text, model=plan.id: observer.on_degraded(model, level, text),  # type: ignore[misc]
            )
            for plan in plans
        }
        self._models: dict[str, ServedModel] = {}
        self._names: dict[str, str] = {}
        self._require_all = settings.require_all or len(plans) == 1
        self._not_served: dict[str, str] = {}
        """Why, by model."""
        self._draining = False
        self._closed = False

    def _make_group(self, plan: ModelPlan, settings: PoolSettings) -> Group:
        return Group(
            plan.id,
            plan.workers,
            self._observer,
            limits=settings.limits,
            timeouts=settings.timeouts,
            settings=settings.instance,
            on_change=lambda: self._on_change(plan.id),
        )

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load everything, all instances at once.

        Raises:
            StartError: no model can be served, or not every one and that is required. What had been started
                is stopped again.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for plan in self._plans.values():
                    group.create_task(self._start_or_go_without(plan))
            if not self._models:
                raise StartError("; ".join(self._not_served[name] for name in self._plans))
            self._check_variants()
        except BaseExceptionGroup as errors:
            await self.stop(drain_s=0)
            raise errors.exceptions[0] from None
        except StartError:
            await self.stop(drain_s=0)
            raise

    async def _start_or_go_without(self, plan: ModelPlan) -> None:
        try:
            await self._start_model(plan)
        except StartError as error:
            if self._require_all:
                raise
            self._not_served[plan.id] = _without_folder(str(error), plan)
            self._observer.on_not_served(plan.id, str(error))
            await self._groups[plan.id].stop(error)

    async def _start_model(self, plan: ModelPlan) -> None:
        # Workers first: a file on which llama.cpp aborts ends one of them, and this process never reads it.
        info = await self._groups[plan.id].start()
        vocabulary = await asyncio.to_thread(plan.load_vocabulary)
        self._models[plan.id] = ServedModel(
            plan.id, plan.aliases, int(time.time()), info, vocabulary, plan.sampling
        )
        for name in (plan.id, *plan.aliases):
            self._names.setdefault(name, plan.id)

    def _check_variants(self) -> None:
        for plan in self._plans.values():
            for other in (plan.smaller, plan.fallback):
                if other is None or self._not_served.keys() & {other, plan.id}:
                    continue
                if other not in self._models or other == plan.id:
                    raise StartError(f"model {plan.id}: {other!r} is no other model of this server")
                if not _speak_alike(self._models[plan.id].vocabulary, self._models[other].vocabulary):
                    raise StartError(f"model {plan.id}: {other!r} has another vocabulary")

    def begin_drain(self, *, refuse: bool = True) -> None:
        """Not ready from now on; with ``refuse`` new requests are turned away, too."""
        self._draining = True
        self._closed = self._closed or refuse

    async def stop(self, drain_s: float) -> None:
        """Accept nothing more, let what runs finish for at most ``drain_s``, end the workers."""
        self.begin_drain()
        groups = self._groups.values()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(group.drained() for group in groups)), drain_s)
        for degrader in self._degraders.values():
            degrader.stop()
        reason = Overloaded(
            "the server shut down before the request was complete",
            code="server_shutting_down",
            retry_after_s=1.0,
        )
        await asyncio.gather(*(group.stop(reason) for group in groups))

    def set_keys(self, limits: dict[str, KeyLimits]) -> None:
        """After a reload of the keys file. What was used in the last minute stays used."""
        self._limiter.replace(limits)

    @property
    def instances(self) -> list[Instance]:
        return [instance for group in self._groups.values() for instance in group.instances]

    async def look(self, since: float) -> tuple[ModelView, ...]:
        """Everything there is to see. ``since``: of the spans, those that ended later."""
        await asyncio.gather(*(instance.refresh() for instance in self.instances))
        return tuple(self._look_at(name, since) for name in self._plans)

    def _look_at(self, name: str, since: float) -> ModelView:
        plan, group, degrader = self._plans[name], self._groups[name], self._degraders[name]
        return ModelView(
            id=name,
            degradation_level=degrader.level,
            degradation=degrader.names,
            smaller=plan.smaller,
            fallback=plan.fallback,
            parked=group.num_parked,
            instances=tuple(instance.view(since) for instance in group.instances),
        )

    # --- service --------------------------------------------------------------------------------

    def models(self) -> list[ServedModel]:
        return [self._models[name] for name in self._plans if name in self._models]

    def model(self, name: str | None) -> ServedModel:
        models = self.models()
        if name is None and models:
            return models[0]
        found = self._names.get(name or "")
        if name in self._not_served:
            return self._stand_in(name)
        if found is None and self._is_loading:
            raise Overloaded("the models are still loading", code="model_loading", retry_after_s=2.0)
        if found is None:
            there = ", ".join(model.id for model in models) or "none yet"
            raise NotFound(f"model {name!r} is not served here; there is: {there}", param="model")
        return self._models[found]

    @property
    def _is_loading(self) -> bool:
        return len(self._models) + len(self._not_served) < len(self._plans)

    def _stand_in(self, name: str) -> ServedModel:
        """Who answers for a model that could not be started.

        Raises:
            Overloaded: nobody.
        """
        fallback = self._models.get(self._plans[name].fallback or "")
        if fallback is None:
            raise Overloaded(
                f"model {name!r} could not be started and is not served; /health says why",
                code="model_not_served",
                retry_after_s=MAX_RETRY_S,
            )
        self._observer.on_rerouted(name, fallback.id, "fallback")
        return fallback

    def check_open(
        self, model: ServedModel, num_requests: int, priority: int, terms: Terms = ANYBODY
    ) -> None:
        with self._counting_refusals(model):
            self._check_running()
            name, _ = self._variants(model.id, self._priority(priority, terms))[-1]
            self._groups[self._alive(name)].check_open(num_requests, terms)

    def submit(self, model: ServedModel, requests: list[EngineRequest], terms: Terms = ANYBODY) -> Accepted:
        with self._counting_refusals(model):
            return self._submit(model, requests, terms)

    @contextlib.contextmanager
    def _counting_refusals(self, model: ServedModel) -> Iterator[None]:
        try:
            yield
        except Refused as error:
            self._observer.on_rejected(model.id, error.code or "", error.bound)
            raise

    def _check_running(self) -> None:
        if self._closed:
            raise Overloaded("the server is shutting down", code="server_shutting_down", retry_after_s=1.0)

    def _submit(self, model: ServedModel, requests: list[EngineRequest], terms: Terms) -> Accepted:
        self._check_running()
        requests = self._with_priority(self._with_salt(requests, terms), terms)
        chosen, requests, notes = self._degrade(model, requests)
        for request in requests:
            check_fits(len(request.prompt), request.max_tokens, chosen.info.ctx_per_slot)
        group = self._groups[chosen.id]
        instance = group.choose(requests, terms)
        tokens = sum(len(request.prompt) + request.max_tokens for request in requests)
        permit, headers = self._limiter.admit(terms.key, tokens, len(requests))
        if notes:
            headers = (*headers, ("x-rllm-degraded", ", ".join(notes)))
        now = time.monotonic()
        deadline = now + terms.timeout_s if terms.timeout_s else None
        flights = [self._flight(request, group, terms, permit, Times(now, deadline)) for request in requests]
        for flight in flights:
            group.launch(flight, instance)
        self._degraders[chosen.id].look()
        return Accepted([flight.stream for flight in flights], chosen, headers)

    def _flight(
        self, request: EngineRequest, group: Group, terms: Terms, permit: Permit | None, times: Times
    ) -> Flight:
        stream = Stream(request.id, group.cancel, hold=not terms.streaming)
        return Flight(request, stream, times, permit)

    def _with_salt(self, requests: list[EngineRequest], terms: Terms) -> list[EngineRequest]:
        """Apart from other keys: how fast a prompt is answered tells whether somebody has asked it before."""
        if terms.key is None or self._share_prefixes:
            return requests
        own = f"{len(terms.key)}:{terms.key}:"  # no name and salt read like another's
        return [msgspec.structs.replace(each, cache_salt=own + each.cache_salt) for each in requests]

    def _with_priority(self, requests: list[EngineRequest], terms: Terms) -> list[EngineRequest]:
        priorities = [self._priority(request.priority, terms) for request in requests]
        if all(request.priority == own for request, own in zip(requests, priorities, strict=True)):
            return requests
        return [
            msgspec.structs.replace(request, priority=own)
            for request, own in zip(requests, priorities, strict=True)
        ]

    def _priority(self, asked: int, terms: Terms) -> int:
        """A key's own priority is the best its requests can have."""
        return self._limiter.priority(terms.key) + max(0, asked)

    def _degrade(
        self, model: ServedModel, requests: list[EngineRequest]
    ) -> tuple[ServedModel, list[EngineRequest], list[str]]:
        """Who answers, to what, and what has changed: down the variants as far as their levels say.

        Raises:
            Overloaded: the last of them has no room.
        """
        variants = self._variants(model.id, requests[0].priority)
        name, wanted = variants[-1][0], requests
        for _, measures in variants:
            wanted = cap_tokens(measures, wanted)
        if name != model.id:
            self._observer.on_rerouted(model.id, name, "degraded")
        alive = self._alive(name)
        if alive != name:
            self._observer.on_rerouted(name, alive, "fallback")
        notes = [f"max_tokens={wanted[0].max_tokens}"] if wanted is not requests else []
        notes += [f"model={alive}"] if alive != model.id else []
        return self._models[alive], wanted, notes

    def _variants(self, name: str, priority: int) -> list[tuple[str, Measures]]:
        """A model and what holds for it, then the smaller one that it routes to, and so on. The last answers.

        Raises:
            Overloaded: one of them has no room for this priority.
        """
        found: list[tuple[str, Measures]] = []
        following: str | None = name
        while following is not None:
            name = following
            measures, smaller = self._degraders[name].look(), self._plans[name].smaller
            goes_on = measures.route and smaller is not None and self._groups[smaller].is_available
            if goes_on:
                measures = replace(measures, refuse=False)
            check_level(measures, priority, partial(self._groups[name].retry_after_s, 1))
            found.append((name, measures))
            following = smaller if goes_on else None
        return found

    def _alive(self, name: str) -> str:
        """The model, or the fallback of one that takes no requests."""
        fallback = self._plans[name].fallback
        if fallback and not self._groups[name].is_available and self._groups[fallback].is_available:
            return fallback
        return name

    def _on_change(self, model: str) -> None:
        self._degraders[model].look()

    def health(self) -> Health:
        states = tuple((instance.name, instance.state.value) for instance in self.instances)
        reason = self._unready()
        return Health(
            reason is None,
            reason or "ok",
            states,
            fallbacks=tuple((i.name, i.fallback) for i in self.instances if i.fallback is not None),
            tuned=tuple((instance.name, instance.tuned) for instance in self.instances if instance.tuned),
            not_served=tuple(self._not_served.items()),
        )

    def _unready(self) -> str | None:
        """Why new requests would not be accepted or make no progress."""
        if self._draining:
            return "draining"
        if self._is_loading:
            return "loading"
        if not all(self._can_answer(name) for name in self._models):
            return "no healthy instance"
        return None

    def num_in_flight(self) -> int:
        parked = sum(group.num_parked for group in self._groups.values())
        return parked + sum(instance.num_outstanding for instance in self.instances)

    def _can_answer(self, name: str) -> bool:
        """A half-open breaker counts: its probes are how it closes."""
        fallback = self._plans[name].fallback
        groups = [self._groups[name], *([self._groups[fallback]] if fallback else [])]
        now = time.monotonic()
        return any(i.is_ready and i.breaker.allows(now, 0) for group in groups for i in group.instances)


def _without_folder(text: str, plan: ModelPlan) -> str:
    """/health is open to everybody, and where files lie is nobody's business."""
    path = Path(plan.workers[0].model_path)
    return text.replace(str(path), path.name) if path.name else text


def _speak_alike(one: Vocabulary, other: Vocabulary) -> bool:
    """Prompts are tokenized once: the token ids of one must mean the same to the other."""
    if one.size != other.size or one.end_tokens != other.end_tokens:
        return False
    step = max(1, one.size // 1000)
    return all(one.piece(token) == other.piece(token) for token in range(0, one.size, step))
