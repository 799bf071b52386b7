"""What went wrong and what the server did about it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from rllm.serving.breaker import BreakerState
from rllm.serving.timeouts import Limit


class ReliabilityMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        instance = ["model", "instance"]
        self._known: set[str] = set()
        self.lost = Counter(
            "rllm_sequences_lost_total",
            "Sequences whose worker was lost: retried unseen, or failed because a part had been sent.",
            [*instance, "outcome"],
            registry=registry,
        )
        self.timeouts = Counter(
            "rllm_timeouts_total",
            "Sequences ended because a time limit was passed, by the error code clients get.",
            ["model", "limit"],
            registry=registry,
        )
        self.stalls = Counter(
            "rllm_worker_stalls_total",
            "Workers killed because they had work and made no step.",
            instance,
            registry=registry,
        )
        self.start_failures = Counter(
            "rllm_worker_start_failures_total",
            "Tries to replace a lost worker that failed; the next one follows after a pause.",
            instance,
            registry=registry,
        )
        self.faults = Counter(
            "rllm_background_faults_total",
            "Faults of background tasks and callbacks: bugs. Each has an event in the log.",
            registry=registry,
        )
        self.short_memory = Counter(
            "rllm_out_of_memory_total",
            "Times an instance was given fewer slots because memory ran out (rllm_slots says how many).",
            instance,
            registry=registry,
        )
        self.crashes_at_start = Counter(
            "rllm_crashes_at_start_total",
            "Workers that crashed or miscomputed before they were ready.",
            instance,
            registry=registry,
        )
        self.fallback = Gauge(
            "rllm_fallback_info",
            "Options that an instance computes only with on this machine; always 1, and absent where there "
            "are none.",
            [*instance, "options"],
            registry=registry,
        )
        self._breaker = Gauge(
            "rllm_breaker_state",
            "1 for the state an instance's circuit breaker was last seen in.",
            [*instance, "state"],
            registry=registry,
        )
        self.level = Gauge(
            "rllm_degradation_level", "Rung of the ladder; 0 is normal service.", ["model"], registry=registry
        )
        self.rerouted = Counter(
            "rllm_rerouted_total",
            "Requests given to another model, because of overload (degraded) or a dead one (fallback).",
            ["model", "to", "reason"],
            registry=registry,
        )

    def ready(self, model: str, instance: str) -> None:
        """Counters that have not counted yet are shown as 0."""
        self.stalls.labels(model, instance)
        self.crashes_at_start.labels(model, instance)
        self.short_memory.labels(model, instance)
        self.start_failures.labels(model, instance)
        if instance not in self._known:  # a new worker does not close its instance's breaker
            self._known.add(instance)
            self.breaker_changed(model, instance, BreakerState.CLOSED)
        self.level.labels(model)
        for outcome in ("retried", "failed"):
            self.lost.labels(model, instance, outcome)
        for limit in Limit:
            self.timeouts.labels(model, limit.value)

    def breaker_changed(self, model: str, instance: str, state: BreakerState) -> None:
        for other in BreakerState:
            self._breaker.labels(model, instance, other.value).set(other is state)
