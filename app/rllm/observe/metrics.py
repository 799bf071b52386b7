"""What happens, as Prometheus metrics. An implementation of the observers; the engine knows nothing of it.

The mean decode batch over a time is ``rate(rllm_decode_tokens_total) / rate(rllm_decode_steps_total)``:
one decode token per running sequence and step. Python's share of a step is
``rate(rllm_step_phase_seconds_total{phase=~"plan|commit"})`` over the sum of all phases.

Labels are bounded: models and instances are those configured, routes are patterns, reasons are our own codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from rllm import __version__
from rllm.api.http.records import RequestRecord
from rllm.backends.options import Fallback
from rllm.engine.types import ComputePath, EngineRequest, Event, ModelInfo, StepRecord
from rllm.observe.collectors import GpuCollector, LogCollector, ProcessCollector
from rllm.observe.exposition import Renderer
from rllm.observe.gpu import Gpus
from rllm.observe.http_metrics import HttpMetrics
from rllm.observe.queue_metrics import QueueMetrics
from rllm.observe.reliability_metrics import ReliabilityMetrics
from rllm.observe.sequence_metrics import SequenceMetrics
from rllm.observe.step_metrics import InstanceMetrics, StepMetrics
from rllm.observe.vllm_names import vllm_families
from rllm.serving.breaker import BreakerState
from rllm.serving.fallbacks import in_words
from rllm.serving.observer import InstanceState, Observer
from rllm.serving.timeouts import Limit

_UNKNOWN = ""
"""Label of a model that is not served here: what clients invent must not become a label."""


class Metrics(Observer):
    """One registry with everything. Call it from the event loop only."""

    def __init__(
        self,
        gpus: Gpus | None = None,
        *,
        vllm_names: bool = False,
        num_lines_dropped: Callable[[], int] = lambda: 0,
    ) -> None:
        """``vllm_names``: show the common ones also under vLLM's names. ``num_lines_dropped``: of the log."""
        self.registry = CollectorRegistry()
        self._vllm_names = vllm_names
        self._renderer = Renderer()
        self._models: set[str] = set()
        self._http = HttpMetrics(self.registry)
        self._sequences = SequenceMetrics(self.registry)
        self._instances = _StateMetrics(self.registry)
        self._steps = StepMetrics(self.registry)
        self._reliability = ReliabilityMetrics(self.registry)
        self._queues = QueueMetrics()
        self.registry.register(self._queues)
        self._bound: dict[str, InstanceMetrics] = {}
        self._processes = ProcessCollector()
        self.registry.register(self._processes)
        self.registry.register(LogCollector(num_lines_dropped))
        self.registry.register(GpuCollector(gpus if gpus is not None else Gpus()))
        build = Gauge(
            "rllm_build_info", "Version of the server; always 1.", ["version"], registry=self.registry
        )
        build.labels(__version__).set(1)

    def render(self) -> bytes:
        """The text for a scrape."""
        families = list(self.registry.collect())
        if self._vllm_names:
            families += vllm_families(families)
        return self._renderer.render(families)

    # --- HTTP -----------------------------------------------------------------------------------

    def know_keys(self, names: Iterable[str]) -> None:
        """Whose refusals are shown as 0 before there is one."""
        self._http.know_keys(names)

    def on_start(self, record: RequestRecord) -> None:
        self._http.arrived(record)

    def on_request(self, record: RequestRecord) -> None:
        model = record.model if record.model in self._models else _UNKNOWN
        self._http.over(record, model or _UNKNOWN)

    # --- serving --------------------------------------------------------------------------------

    def on_ready(self, model: str, instance: str, info: ModelInfo, pid: int) -> None:
        self._models.add(model)
        self._http.ready(model)
        self._sequences.ready(model, instance)
        self._queues.ready(model, instance)
        self._reliability.ready(model, instance)
        self._instances.ready(model, instance, info)
        self._processes.watch(instance, pid)
        if instance not in self._bound:
            self._bound[instance] = self._steps.bind(model, instance)
        self._bound[instance].ready(info)

    def on_instance(self, model: str, instance: str, state: InstanceState, reason: str) -> None:
        self._instances.changed(model, instance, state)
        if state is not InstanceState.READY:
            self._processes.forget(instance)
            if instance in self._bound:
                self._bound[instance].reset()

    def on_step(self, model: str, instance: str, record: StepRecord) -> None:
        self._bound[instance].step(record)

    def on_accepted(self, model: str, instance: str, request: EngineRequest) -> None:
        self._sequences.accepted.labels(model, instance).inc()
        self._sequences.in_flight.labels(model, instance).inc()
        self._queues.accepted(model, instance, request)
        self._bound[instance].accepted()

    def on_started(self, model: str, instance: str, request: EngineRequest) -> None:
        self._queues.left(model, instance, request)

    def on_rejected(self, model: str, reason: str, bound: str) -> None:
        self._sequences.rejections.labels(model, reason, bound).inc()

    def on_first_token(self, model: str, instance: str, seconds: float) -> None:
        self._sequences.first_token.labels(model).observe(seconds)
        self._bound[instance].first_token()

    def on_token_gap(self, model: str, instance: str, seconds: float) -> None:
        self._bound[instance].token_gap(seconds)

    def on_finished(
        self, model: str, instance: str, request: EngineRequest, event: Event, seconds: float
    ) -> None:
        self._sequences.in_flight.labels(model, instance).dec()
        self._queues.left(model, instance, request)
        self._sequences.finished(model, event, seconds)
        self._bound[instance].finished()

    def on_lost(self, model: str, instance: str, request: EngineRequest, retried: bool) -> None:
        self._sequences.in_flight.labels(model, instance).dec()
        self._queues.left(model, instance, request)
        self._reliability.lost.labels(model, instance, "retried" if retried else "failed").inc()

    def on_timeout(self, model: str, limit: Limit) -> None:
        self._reliability.timeouts.labels(model, limit.value).inc()

    def on_start_failed(self, model: str, instance: str, reason: str) -> None:
        self._reliability.start_failures.labels(model, instance).inc()

    def on_fault(self) -> None:
        """A background task or a callback of the event loop has failed."""
        self._reliability.faults.inc()

    def on_stall(self, model: str, instance: str, seconds: float) -> None:
        self._reliability.stalls.labels(model, instance).inc()

    def on_fewer_slots(self, model: str, instance: str, before: int, after: int) -> None:
        self._reliability.short_memory.labels(model, instance).inc()

    def on_crash_at_start(self, model: str, instance: str, way: str, reason: str) -> None:
        self._reliability.crashes_at_start.labels(model, instance).inc()

    def on_fallback(self, model: str, instance: str, fallback: Fallback) -> None:
        self._reliability.fallback.labels(model, instance, in_words(fallback.options)).set(1)

    def on_breaker(self, model: str, instance: str, state: BreakerState) -> None:
        self._reliability.breaker_changed(model, instance, state)

    def on_degraded(self, model: str, level: int, measures: str) -> None:
        self._reliability.level.labels(model).set(level)

    def on_rerouted(self, model: str, to: str, reason: str) -> None:
        self._reliability.rerouted.labels(model, to, reason).inc()


def _label_values(path: ComputePath) -> list[str]:
    values = [getattr(path, name) for name in ComputePath.__struct_fields__]
    return [",".join(value) if isinstance(value, tuple) else str(value).lower() for value in values]


class _StateMetrics:
    """Which instances there are and how they fare."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["model", "instance"]
        self._state = Gauge(
            "rllm_instance_state", "1 for the state an instance is in.", [*labels, "state"], registry=registry
        )
        self._restarts = Counter(
            "rllm_worker_restarts_total",
            "Workers that were lost and are replaced.",
            labels,
            registry=registry,
        )
        self._load = Gauge(
            "rllm_model_load_seconds", "Time the last load of the model took.", labels, registry=registry
        )
        self._info = Gauge(
            "rllm_model_info",
            "What an instance serves; always 1.",
            [*labels, "description", "architecture", "device", "kv"],
            registry=registry,
        )

        self._shown: dict[str, tuple[str, ...]] = {}
        self._compute = Gauge(
            "rllm_compute_info",
            "By which code an instance computes; always 1.",
            [*labels, *ComputePath.__struct_fields__],
            registry=registry,
        )
        self._buffers = Gauge(
            "rllm_buffer_bytes",
            "What an instance's backend has allocated, by place (CUDA0) and purpose (model, KV, compute).",
            [*labels, "place", "purpose"],
            registry=registry,
        )

    def ready(self, model: str, instance: str, info: ModelInfo) -> None:
        for name, size in info.buffers.items():
            place, _, purpose = name.partition(" ")
            self._buffers.labels(model, instance, place, purpose).set(size)
        kv = "unified" if info.kv_unified else "split"
        self._replace(self._compute, instance, (model, instance, *_label_values(info.compute)))
        self._info.labels(model, instance, info.description, info.architecture, info.device, kv).set(1)
        self._load.labels(model, instance).set(info.load_s)
        self._restarts.labels(model, instance)

    def _replace(self, gauge: Gauge, instance: str, labels: tuple[str, ...]) -> None:
        """Show ``labels``, and no longer what the instance had before."""
        before = self._shown.get(instance)
        if before is not None and before != labels:
            gauge.remove(*before)
        self._shown[instance] = labels
        gauge.labels(*labels).set(1)

    def changed(self, model: str, instance: str, state: InstanceState) -> None:
        for other in InstanceState:
            self._state.labels(model, instance, other.value).set(other is state)
        if state is InstanceState.RESTARTING:
            self._restarts.labels(model, instance).inc()
