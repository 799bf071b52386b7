"""What happens, as Prometheus metrics. An implementation of the observers; the engine knows nothing of it.

The mean decode batch over a time is ``rate(rllm_decode_tokens_total) / rate(rllm_decode_steps_total)``:
one decode token per running sequence and step. Python's share of a step is
``rate(rllm_step_phase_seconds_total{phase=~"plan|commit"})`` over the sum of all phases.

Labels are bounded: models and instances are those configured, routes are patterns, reasons are our own codes.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from rllm import __version__
from rllm.api.records import RequestRecord
from rllm.engine.types import EngineRequest, Event, ModelInfo, StepRecord
from rllm.observe.buckets import SECONDS, TOKENS
from rllm.observe.collectors import GpuCollector, ProcessCollector
from rllm.observe.gpu import Gpus
from rllm.observe.reliability_metrics import ReliabilityMetrics
from rllm.observe.step_metrics import InstanceMetrics, StepMetrics
from rllm.serving.breaker import BreakerState
from rllm.serving.observer import InstanceState, Observer
from rllm.serving.timeouts import Limit

_UNKNOWN = ""
"""Label of a model that is not served here: what clients invent must not become a label."""


class Metrics(Observer):
    """One registry with everything. Call it from the event loop only."""

    def __init__(self, gpus: Gpus | None = None) -> None:
        self.registry = CollectorRegistry()
        self._models: set[str] = set()
        self._http = _HttpMetrics(self.registry)
        self._sequences = _SequenceMetrics(self.registry)
        self._instances = _StateMetrics(self.registry)
        self._steps = StepMetrics(self.registry)
        self._reliability = ReliabilityMetrics(self.registry)
        self._bound: dict[str, InstanceMetrics] = {}
        self._processes = ProcessCollector()
        self.registry.register(self._processes)
        self.registry.register(GpuCollector(gpus if gpus is not None else Gpus()))
        build = Gauge(
            "rllm_build_info", "Version of the server; always 1.", ["version"], registry=self.registry
        )
        build.labels(__version__).set(1)

    def render(self) -> bytes:
        """The text for a scrape."""
        return generate_latest(self.registry)

    # --- HTTP -----------------------------------------------------------------------------------

    def on_request(self, record: RequestRecord) -> None:
        model = record.model if record.model in self._models else _UNKNOWN
        self._http.observe(record, model or _UNKNOWN)

    # --- serving --------------------------------------------------------------------------------

    def on_ready(self, model: str, instance: str, info: ModelInfo, pid: int) -> None:
        self._models.add(model)
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
        self._sequences.in_flight.labels(model, instance).inc()
        self._bound[instance].accepted()

    def on_rejected(self, model: str, reason: str) -> None:
        self._sequences.rejections.labels(model, reason).inc()

    def on_first_token(self, model: str, instance: str, seconds: float) -> None:
        self._sequences.first_token.labels(model).observe(seconds)

    def on_token_gap(self, model: str, instance: str, seconds: float) -> None:
        self._bound[instance].token_gap(seconds)

    def on_finished(
        self, model: str, instance: str, request: EngineRequest, event: Event, seconds: float
    ) -> None:
        self._sequences.in_flight.labels(model, instance).dec()
        self._sequences.finished(model, event, seconds)
        self._bound[instance].finished()

    def on_lost(self, model: str, instance: str, request: EngineRequest, retried: bool) -> None:
        self._sequences.in_flight.labels(model, instance).dec()
        self._reliability.lost.labels(model, instance, "retried" if retried else "failed").inc()

    def on_timeout(self, model: str, limit: Limit) -> None:
        self._reliability.timeouts.labels(model, limit.value).inc()

    def on_stall(self, model: str, instance: str, seconds: float) -> None:
        self._reliability.stalls.labels(model, instance).inc()

    def on_fewer_slots(self, model: str, instance: str, before: int, after: int) -> None:
        self._reliability.short_memory.labels(model, instance).inc()

    def on_breaker(self, model: str, instance: str, state: BreakerState) -> None:
        self._reliability.breaker_changed(model, instance, state)

    def on_degraded(self, model: str, level: int, measures: str) -> None:
        self._reliability.level.labels(model).set(level)

    def on_rerouted(self, model: str, to: str, reason: str) -> None:
        self._reliability.rerouted.labels(model, to, reason).inc()


class _HttpMetrics:
    """One observation per HTTP request, when it is over."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "rllm_requests_total",
            "HTTP requests that are over. Status 499: the client went away. Several choices that ended "
            "differently count as mixed.",
            ["route", "model", "status", "finish_reason"],
            registry=registry,
        )
        self._errors = Counter(
            "rllm_request_errors_total",
            "HTTP requests that ended with an error, by its code; also streams that failed after their 200.",
            ["route", "code"],
            registry=registry,
        )
        self._duration = Histogram(
            "rllm_request_duration_seconds",
            "From the arrival of a request to the end of its response.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self._first_token = Histogram(
            "rllm_request_time_to_first_token_seconds",
            "From the arrival of a request to the first token handed to the client's socket.",
            ["route", "model"],
            buckets=SECONDS,
            registry=registry,
        )

    def observe(self, record: RequestRecord, model: str) -> None:
        reasons = set(record.finish_reasons)
        reason = "mixed" if len(reasons) > 1 else next(iter(reasons), "")
        self._requests.labels(record.route, model, record.status, reason).inc()
        if record.error_code is not None:
            self._errors.labels(record.route, record.error_code).inc()
        self._duration.labels(record.route).observe(record.duration_s)
        if record.ttft_s is not None:
            self._first_token.labels(record.route, model).observe(record.ttft_s)


class _SequenceMetrics:
    """What the serving layer sees of one sequence: a choice of a request is one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def seconds(name: str, text: str) -> Histogram:
            return Histogram(f"rllm_{name}_seconds", text, ["model"], buckets=SECONDS, registry=registry)

        def tokens(name: str, text: str) -> Counter:
            return Counter(f"rllm_{name}_tokens_total", text, ["model"], registry=registry)

        self.in_flight = Gauge(
            "rllm_sequences_in_flight",
            "Sequences given to an instance and not over.",
            ["model", "instance"],
            registry=registry,
        )
        self.rejections = Counter(
            "rllm_rejections_total",
            "Requests refused before anything was computed, by reason.",
            ["model", "reason"],
            registry=registry,
        )
        self._finished = Counter(
            "rllm_sequences_finished_total",
            "Sequences that are over, by reason.",
            ["model", "reason"],
            registry=registry,
        )
        self.first_token = seconds("time_to_first_token", "From acceptance to the first token of a sequence.")
        self._e2e = seconds("e2e_latency", "From acceptance to the end of a sequence.")
        self._queue = seconds("queue_time", "Waiting for a slot.")
        self._prefill = seconds("prefill_time", "From getting a slot to the first token.")
        self._decode = seconds("decode_time", "From the first token to the last.")
        self._tpot = seconds("time_per_output_token", "Decode time per token after the first.")
        self._prompt = tokens("prompt", "Prompt tokens of sequences that are over.")
        self._cached = tokens("cached_prompt", "Prompt tokens that were resident and not computed again.")
        self._generated = tokens("generated", "Generated tokens of sequences that are over.")
        self._prompt_length = Histogram(
            "rllm_prompt_length_tokens", "Length of prompts.", ["model"], buckets=TOKENS, registry=registry
        )
        self._output_length = Histogram(
            "rllm_output_length_tokens", "Length of outputs.", ["model"], buckets=TOKENS, registry=registry
        )

    def finished(self, model: str, event: Event, seconds: float) -> None:
        self._finished.labels(model, event.finish or _UNKNOWN).inc()
        self._e2e.labels(model).observe(seconds)
        if event.timings is not None:
            self._queue.labels(model).observe(event.timings.queue_s)
            self._prefill.labels(model).observe(event.timings.prefill_s)
            self._decode.labels(model).observe(event.timings.decode_s)
        if (usage := event.usage) is None:
            return
        self._prompt.labels(model).inc(usage.prompt_tokens)
        self._cached.labels(model).inc(usage.cached_tokens)
        self._generated.labels(model).inc(usage.completion_tokens)
        self._prompt_length.labels(model).observe(usage.prompt_tokens)
        self._output_length.labels(model).observe(usage.completion_tokens)
        if event.timings is not None and usage.completion_tokens > 1:
            self._tpot.labels(model).observe(event.timings.decode_s / (usage.completion_tokens - 1))


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
        self._info.labels(model, instance, info.description, info.architecture, info.device, kv).set(1)
        self._load.labels(model, instance).set(info.load_s)
        self._restarts.labels(model, instance)

    def changed(self, model: str, instance: str, state: InstanceState) -> None:
        for other in InstanceState:
            self._state.labels(model, instance, other.value).set(other is state)
        if state is InstanceState.RESTARTING:
            self._restarts.labels(model, instance).inc()
