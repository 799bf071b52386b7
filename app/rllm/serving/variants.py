"""Which model answers for which: down the smaller ones as far as the load says, then to a fallback."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from rllm.serving.catalog import ModelPlan
from rllm.serving.degrading import Degrader, check_level
from rllm.serving.group import Group
from rllm.serving.observer import Observer
from rllm.settings.degrade import DegradeSettings


@dataclass(frozen=True, slots=True)
class Variant:
    """The model that answers, and how it came to that."""

    asked: str
    routed: str
    """The model to which the ladder leads."""
    id: str
    """The fallback of that one, or itself."""
    max_tokens: int | None
    """The smallest cap on the way."""


class Variants:
    """Owns the degradation ladder of every model."""

    def __init__(
        self,
        plans: Mapping[str, ModelPlan],
        groups: Mapping[str, Group],
        settings: DegradeSettings,
        observer: Observer,
    ) -> None:
        self._plans = plans
        self._groups = groups
        self._observer = observer
        self._has_ladder = bool(settings.rungs)
        self._degraders = {
            name: Degrader(
                settings,
                lambda group=group: group.utilization,  # type: ignore[misc]
                lambda level, text, name=name: observer.on_degraded(name, level, text),  # type: ignore[misc]
            )
            for name, group in groups.items()
        }

    def resolve(self, model: str, priority: int) -> Variant:
        """The model that answers for ``model`` now.

        Raises:
            Overloaded: a model on the way has no room for this priority.
        """
        if not self._has_ladder:
            return Variant(model, model, self._alive(model), None)
        name, caps = model, []
        while True:
            measures = self._degraders[name].look()
            following = self._following(name) if measures.route else None
            if following is not None:  # "refuse" is for the last one, after which nobody can be asked
                measures = replace(measures, refuse=False)
            check_level(measures, priority, self._groups[name].router.retry_after_s)
            caps += [] if measures.max_tokens is None else [measures.max_tokens]
            if following is None:
                return Variant(model, name, self._alive(name), min(caps, default=None))
            name = following

    def _following(self, name: str) -> str | None:
        """The smaller model that takes over from this one, while it takes requests."""
        smaller = self._plans[name].smaller
        return smaller if smaller is not None and self._groups[smaller].router.is_available else None

    def _alive(self, name: str) -> str:
        """The model, or the fallback of one that takes no requests."""
        fallback = self._plans[name].fallback
        if not fallback or self._groups[name].router.is_available:
            return name
        return fallback if self._groups[fallback].router.is_available else name

    def tell(self, variant: Variant) -> None:
        """Tell the observer that a request goes another way than asked."""
        if variant.routed != variant.asked:
            self._observer.on_rerouted(variant.asked, variant.routed, "degraded")
        if variant.id != variant.routed:
            self._observer.on_rerouted(variant.routed, variant.id, "fallback")

    def look(self, model: str) -> None:
        """Its load has changed."""
        self._degraders[model].look()

    def level(self, model: str) -> tuple[int, str]:
        """The level of its ladder, 0 for normal service, and what holds there."""
        degrader = self._degraders[model]
        return degrader.level, degrader.names

    def can_answer(self, model: str) -> bool:
        """Whether it or its fallback gets requests. A half-open breaker counts: probes are how it closes."""
        fallback = self._plans[model].fallback
        groups = [self._groups[model], *([self._groups[fallback]] if fallback else [])]
        now = time.monotonic()
        return any(i.is_ready and i.breaker.allows(now, 0) for group in groups for i in group.instances)

    def stop(self) -> None:
        for degrader in self._degraders.values():
            degrader.stop()
