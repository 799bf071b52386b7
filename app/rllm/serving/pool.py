"""All models with their instances, behind the one door that the API knows."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from rllm.engine.types import EngineRequest
from rllm.errors import Overloaded, Refused, StartError
from rllm.serving.admission import check_fits
from rllm.serving.catalog import Catalog, ModelPlan
from rllm.serving.degrading import cap_tokens
from rllm.serving.group import Group
from rllm.serving.instance import Instance
from rllm.serving.limits import KeyLimits, Limiter
from rllm.serving.observer import Observer
from rllm.serving.service import Accepted, Health, ServedModel
from rllm.serving.terms import ANYBODY, Terms
from rllm.serving.variants import Variants
from rllm.serving.view import ModelView
from rllm.settings.degrade import DegradeSettings
from rllm.settings.limits import InstanceSettings, Limits, Timeouts


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
        self._require_all = settings.require_all or len(plans) == 1
        self._groups = {plan.id: self._make_group(plan, settings) for plan in plans}
        self._variants = Variants(self._plans, self._groups, settings.degrade, observer)
        self._catalog = Catalog(self._plans, observer)
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
            on_change=lambda: self._variants.look(plan.id),
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
            self._catalog.check_complete()
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
            self._catalog.leave_out(plan, error)
            await self._groups[plan.id].stop(error)

    async def _start_model(self, plan: ModelPlan) -> None:
        # Workers first: a file on which llama.cpp aborts ends one of them, and this process never reads it.
        info = await self._groups[plan.id].start()
        self._catalog.add(plan, info, await asyncio.to_thread(plan.load_vocabulary))

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
        self._variants.stop()
        reason = Overloaded(
            "the server shut down before the request was complete",
            code="server_shutting_down",
            retry_after_s=1.0,
        )
        await asyncio.gather(*(group.stop(reason) for group in groups))

    def set_keys(self, limits: dict[str, KeyLimits]) -> None:
        """After a reload of the keys file. What was used in the last minute stays used."""
        self._limiter.replace(limits)

    # --- requests -------------------------------------------------------------------------------

    def models(self) -> list[ServedModel]:
        return self._catalog.served()

    def model(self, name: str | None) -> ServedModel:
        return self._catalog.find(name)

    def check_open(
        self, model: ServedModel, num_requests: int, priority: int, terms: Terms = ANYBODY
    ) -> None:
        try:
            self._check_running()
            variant = self._variants.resolve(model.id, self._priority(priority, terms))
            self._groups[variant.id].router.check_open(num_requests, terms)
        except Refused as error:
            self._observer.on_rejected(model.id, error.code or "", error.bound)
            raise

    def submit(self, model: ServedModel, requests: list[EngineRequest], terms: Terms = ANYBODY) -> Accepted:
        try:
            return self._submit(model, requests, terms)
        except Refused as error:
            self._observer.on_rejected(model.id, error.code or "", error.bound)
            raise

    def _check_running(self) -> None:
        if self._closed:
            raise Overloaded("the server is shutting down", code="server_shutting_down", retry_after_s=1.0)

    def _submit(self, model: ServedModel, requests: list[EngineRequest], terms: Terms) -> Accepted:
        self._check_running()
        requests = [self._as_the_keys(request, terms) for request in requests]
        variant = self._variants.resolve(model.id, requests[0].priority)
        self._variants.tell(variant)
        chosen, group = self._catalog.models[variant.id], self._groups[variant.id]
        capped = requests if variant.max_tokens is None else cap_tokens(variant.max_tokens, requests)
        tokens = 0
        for request in capped:
            check_fits(len(request.prompt), request.max_tokens, chosen.info.ctx_per_slot)
            tokens += len(request.prompt) + request.max_tokens
        offer = group.router.offer(capped, terms)
        permit, headers = self._limiter.admit(terms.key, tokens, len(capped))  # last: it charges
        streams = group.accept(offer, terms, permit)
        self._variants.look(variant.id)
        notes = [f"max_tokens={capped[0].max_tokens}"] if capped is not requests else []
        notes += [f"model={variant.id}"] if variant.id != model.id else []
        if notes:
            headers = (*headers, ("x-rllm-degraded", ", ".join(notes)))
        return Accepted(streams, chosen, headers)

    def _as_the_keys(self, request: EngineRequest, terms: Terms) -> EngineRequest:
        """The request with what its key decides: whose prefixes it shares, and its priority.

        Prefixes of keys are kept apart: how fast a prompt is answered tells whether somebody has asked it.
        """
        salt, priority = request.cache_salt, self._priority(request.priority, terms)
        if terms.key is not None and not self._share_prefixes:
            salt = f"{len(terms.key)}:{terms.key}:{salt}"  # no name and salt read like another's
        if (salt, priority) == (request.cache_salt, request.priority):
            return request
        return msgspec.structs.replace(request, cache_salt=salt, priority=priority)

    def _priority(self, asked: int, terms: Terms) -> int:
        """A key's own priority is the best its requests can have."""
        own = 0 if terms.key is None else self._limiter.priority(terms.key)
        return own + max(0, asked)

    # --- what others look at --------------------------------------------------------------------

    @property
    def instances(self) -> list[Instance]:
        return [instance for group in self._groups.values() for instance in group.instances]

    async def look(self, since: float) -> tuple[ModelView, ...]:
        """Everything there is to see. ``since``: only spans that ended later."""
        await asyncio.gather(*(instance.refresh() for instance in self.instances))
        return tuple(self._look_at(name, since) for name in self._plans)

    def _look_at(self, name: str, since: float) -> ModelView:
        plan, group, (level, names) = self._plans[name], self._groups[name], self._variants.level(name)
        return ModelView(
            id=name,
            degradation_level=level,
            degradation=names,
            smaller=plan.smaller,
            fallback=plan.fallback,
            parked=group.num_parked,
            instances=tuple(instance.view(since) for instance in group.instances),
        )

    def health(self) -> Health:
        reason = self._unready()
        return Health(
            reason is None,
            reason or "ok",
            tuple((instance.name, instance.status.state.value) for instance in self.instances),
            fallbacks=tuple((i.name, i.fallback) for i in self.instances if i.fallback is not None),
            tuned=tuple((instance.name, instance.tuned) for instance in self.instances if instance.tuned),
            not_served=tuple(self._catalog.not_served.items()),
        )

    def _unready(self) -> str | None:
        """Why new requests would not be accepted or make no progress."""
        if self._draining:
            return "draining"
        if self._catalog.is_loading:
            return "loading"
        if not all(self._variants.can_answer(model.id) for model in self.models()):
            return "no healthy instance"
        return None

    def num_in_flight(self) -> int:
        return sum(group.num_pending for group in self._groups.values())
