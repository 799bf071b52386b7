"""Metrics of engine steps. Hundreds of steps and thousands of tokens a second arrive here: labels are bound
once per instance, and what has arrived is counted when somebody looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from rllm.engine.types import ModelInfo, StepRecord
from rllm.observe.buckets import COUNTS, SECONDS, STEP_TOKENS
from rllm.observe.meter import WINDOW_S, Meter
from rllm.observe.tally import Tally

_LABELS = ("model", "instance")
_PHASES = ("plan", "execute", "sample", "commit")
_KINDS = ("prefill", "decode", "mixed", "empty")
_MOST = 256
"""Steps that wait to be counted when nobody looks."""


class StepMetrics(Collector):
    """The families; `bind` makes the part of one instance. Registered before them: see `collect`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._bound: list[InstanceMetrics] = []
        registry.register(self)

        def counter(name: str, text: str) -> Counter:
            return Counter(f"rllm_{name}_total", text, _LABELS, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"rllm_{name}", text, _LABELS, registry=registry)

        self.decode_steps = counter("decode_steps", "Steps in which at least one sequence decoded.")
        self.decode_tokens = counter("decode_tokens", "Tokens decoded: one per sequence and step.")
        self.prefill_tokens = counter("prefill_tokens", "Prompt tokens computed.")
        self.prefix_hit_tokens = counter("prefix_hit_tokens", "Prompt tokens found resident at admission.")
        self.drafted_tokens = counter("drafted_tokens", "Guesses computed beside decodes (speculation).")
        self.accepted_tokens = counter(
            "accepted_tokens", "Guesses that were right: generated without a step."
        )
        self.evicted_tokens = counter("evicted_tokens", "Cells of resident prefixes that were given up.")
        self.preemptions = counter("preemptions", "Sequences that lost their slot and are computed again.")
        self.kv_blocked_steps = counter(
            "kv_blocked_steps",
            "Steps in which a slot was free and no KV cells for the prompt of who is next.",
        )
        self.slow_samples = counter("slow_samples", "Tokens sampled on a slower path than the best one.")
        self.card_samples = counter(
            "card_samples",
            "Tokens sampled from the highest logits, which the GPU found; the others stayed there.",
        )
        self.decode_retries = counter("decode_retries", "llama_decode calls repeated because of its answer.")
        self.graphs_reused = counter("graphs_reused", "Compute graphs that llama.cpp could use again.")
        self.spills = counter("prefix_spills", "Prefixes stored outside the KV cache.")
        self.spill_seconds = counter("prefix_spill_seconds", "Time of copying them out of the KV cache.")
        self.restores = counter("prefix_restores", "Stored prefixes that were brought back.")
        self.restored_tokens = counter("prefix_restored_tokens", "Tokens that were brought back with them.")
        self.restore_seconds = counter("prefix_restore_seconds", "Time of copying them into the KV cache.")
        self.store_failures = counter(
            "prefix_store_failures", "Prefixes that could not be stored, written, read or restored."
        )
        self.running = gauge("requests_running", "Sequences that hold a slot.")
        self.waiting = gauge("requests_waiting", "Sequences in the worker that wait for a slot.")
        self.slots_used = gauge("slots_used", "Slots that are taken.")
        self.slots = gauge("slots", "Slots there are.")
        self.kv_used = gauge("kv_cells_used", "KV cells that hold a token, resident prefixes included.")
        self.kv_cells = gauge("kv_cells", "KV cells there are.")
        self.kv_bytes = gauge("kv_bytes", "Memory of the KV cache.")
        self.store_bytes = Gauge(
            "rllm_prefix_store_bytes",
            "Prefixes stored outside the KV cache, by where; what is in both places counts in both.",
            (*_LABELS, "where"),
            registry=registry,
        )
        self.step_seconds = Histogram(
            "rllm_step_seconds",
            "Length of engine steps, by what they computed.",
            (*_LABELS, "kind"),
            buckets=SECONDS,
            registry=registry,
        )
        self.phase_seconds = Counter(
            "rllm_step_phase_seconds_total",
            "Time in engine steps, by phase: plan and commit are Python, execute and sample llama.cpp.",
            (*_LABELS, "phase"),
            registry=registry,
        )
        self.batch_size = Histogram(
            "rllm_decode_batch_size",
            "Sequences that decoded in a step, where any did.",
            _LABELS,
            buckets=COUNTS,
            registry=registry,
        )
        self.step_tokens = Histogram(
            "rllm_step_tokens", "Tokens computed in a step.", _LABELS, buckets=STEP_TOKENS, registry=registry
        )
        self.tokens_per_second = Gauge(
            "rllm_tokens_per_second",
            f"Mean of the last {WINDOW_S} s: tokens generated (decode), prompt tokens computed (prefill).",
            (*_LABELS, "kind"),
            registry=registry,
        )
        self.token_gap = Histogram(
            "rllm_inter_token_latency_seconds",
            "Time between two steps that brought tokens for the same sequence.",
            _LABELS,
            buckets=SECONDS,
            registry=registry,
        )

    def bind(self, model: str, instance: str) -> InstanceMetrics:
        bound = InstanceMetrics(self, model, instance)
        self._bound.append(bound)
        return bound

    def describe(self) -> Sequence[Metric]:
        return ()

    def collect(self) -> Sequence[Metric]:
        """Nothing of its own: the families, which are collected next, are brought up to date."""
        for instance in self._bound:
            instance.flush()
        return ()


class InstanceMetrics:
    """The children of one instance, looked up once."""

    def __init__(self, families: StepMetrics, model: str, instance: str) -> None:
        at = (model, instance)
        self._decode_steps = families.decode_steps.labels(*at)
        self._decode_tokens = families.decode_tokens.labels(*at)
        self._prefill_tokens = families.prefill_tokens.labels(*at)
        self._rare = [
            (attrgetter(name), getattr(families, family).labels(*at))
            for name, family in (
                ("cached_tokens", "prefix_hit_tokens"),
                ("drafted_tokens", "drafted_tokens"),
                ("accepted_tokens", "accepted_tokens"),
                ("evicted_tokens", "evicted_tokens"),
                ("preemptions", "preemptions"),
                ("kv_blocked", "kv_blocked_steps"),
                ("slow_samples", "slow_samples"),
                ("card_samples", "card_samples"),
                ("retries", "decode_retries"),
                ("graphs_reused", "graphs_reused"),
                ("spills", "spills"),
                ("spill_s", "spill_seconds"),
                ("restores", "restores"),
                ("restored_tokens", "restored_tokens"),
                ("restore_s", "restore_seconds"),
                ("store_failures", "store_failures"),
            )
        ]
        self._running = families.running.labels(*at)
        self._waiting = families.waiting.labels(*at)
        self._slots_used = families.slots_used.labels(*at)
        self._slots = families.slots.labels(*at)
        self._kv_used = families.kv_used.labels(*at)
        self._kv_cells = families.kv_cells.labels(*at)
        self._kv_bytes = families.kv_bytes.labels(*at)
        self._store_memory = families.store_bytes.labels(*at, "memory")
        self._store_disk = families.store_bytes.labels(*at, "disk")
        self._plan, self._execute, self._sample, self._commit = (
            families.phase_seconds.labels(*at, phase) for phase in _PHASES
        )
        self._step_seconds = {kind: Tally(families.step_seconds.labels(*at, kind)) for kind in _KINDS}
        self._batch_size = Tally(families.batch_size.labels(*at))
        self._step_tokens = Tally(families.step_tokens.labels(*at))
        self._gap = Tally(families.token_gap.labels(*at))
        self._metered = 0
        """Of the gaps that wait: those that are in the meter."""
        self._records: list[StepRecord] = []
        self._generated, self._prefilled = Meter(), Meter()
        for kind, meter in (("decode", self._generated), ("prefill", self._prefilled)):
            families.tokens_per_second.labels(*at, kind).set_function(meter.rate)
        self._outstanding = 0

    def ready(self, info: ModelInfo) -> None:
        self._slots.set(info.slots)
        self._kv_cells.set(info.kv_cells)
        self._kv_bytes.set(info.kv_bytes)

    def first_token(self) -> None:
        self._generated.add(1)

    def token_gap(self, seconds: float) -> None:
        self._gap.add(seconds)

    def step(self, record: StepRecord) -> None:
        self._records.append(record)
        self._meter(record.prefill_tokens)
        if record.accepted_tokens:  # no gap of their own
            self._generated.add(record.accepted_tokens)
        if len(self._records) >= _MOST:
            self.flush()

    def _meter(self, prefilled: int) -> None:
        """Rates are of seconds, so tokens must be metered soon after they came."""
        if prefilled:
            self._prefilled.add(prefilled)
        if generated := len(self._gap) - self._metered:
            self._generated.add(generated)
            self._metered += generated

    def flush(self) -> None:
        """Count what has arrived."""
        self._meter(0)
        self._gap.flush()
        self._metered = 0
        if self._records:
            records, self._records = self._records, []
            self._count(records)
            self._time(records)
            self._show(records[-1])

    def _count(self, records: Sequence[StepRecord]) -> None:
        for record in records:
            if record.decode_tokens:
                self._batch_size.add(record.decode_tokens)
            self._step_tokens.add(record.decode_tokens + record.drafted_tokens + record.prefill_tokens)
        self._decode_steps.inc(len(self._batch_size))
        self._decode_tokens.inc(sum(record.decode_tokens for record in records))
        self._prefill_tokens.inc(sum(record.prefill_tokens for record in records))
        self._batch_size.flush()
        self._step_tokens.flush()
        for amount_of, counter in self._rare:
            counter.inc(sum(map(amount_of, records)))

    def _time(self, records: Sequence[StepRecord]) -> None:
        self._plan.inc(sum(record.plan_s for record in records))
        self._execute.inc(sum(record.execute_s for record in records))
        self._sample.inc(sum(record.sample_s for record in records))
        self._commit.inc(sum(record.commit_s for record in records))
        for record in records:
            seconds = record.plan_s + record.execute_s + record.sample_s + record.commit_s
            self._step_seconds[_kind(record)].add(seconds)
        for tally in self._step_seconds.values():
            tally.flush()

    def _show(self, last: StepRecord) -> None:
        self._running.set(last.running)
        self._slots_used.set(last.running)
        self._waiting.set(last.waiting)
        self._kv_used.set(last.kv_used)
        self._store_memory.set(last.store_bytes)
        self._store_disk.set(last.store_disk_bytes)

    def accepted(self) -> None:
        self._outstanding += 1

    def finished(self) -> None:
        """A request that is cancelled before its next step is in no record: an idle worker runs nothing."""
        self._outstanding = max(0, self._outstanding - 1)
        if not self._outstanding:
            self._idle()

    def reset(self) -> None:
        """The worker is gone, and its cache with it."""
        self._outstanding = 0
        self._idle()
        for gauge in (self._kv_used, self._store_memory, self._store_disk):
            gauge.set(0)

    def _idle(self) -> None:
        self.flush()
        for gauge in (self._running, self._slots_used, self._waiting):
            gauge.set(0)


def _kind(record: StepRecord) -> str:
    if record.decode_tokens and record.prefill_tokens:
        return "mixed"
    if record.decode_tokens:
        return "decode"
    return "prefill" if record.prefill_tokens else "empty"
