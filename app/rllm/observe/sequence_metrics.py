"""Metrics of sequences, as the serving layer sees them: a choice of a request is one sequence."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from rllm.engine.types import Event, FinishReason
from rllm.observe.buckets import SECONDS, TOKENS

_UNWANTED = (FinishReason.CANCELLED, FinishReason.ERROR)


class SequenceMetrics:
    """Accepted ones are in flight, finished, or lost with their worker; one that is retried counts again."""

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
        self.accepted = Counter(
            "rllm_sequences_accepted_total",
            "Sequences given to an instance; again, where it was given to another after a lost worker.",
            ["model", "instance"],
            registry=registry,
        )
        self.rejections = Counter(
            "rllm_rejections_total",
            "Requests refused before anything was computed, by error code and by the limit behind it.",
            ["model", "reason", "bound"],
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
        self._wasted = tokens("wasted", "Generated tokens of sequences that were cancelled or failed.")
        self._prompt_length = Histogram(
            "rllm_prompt_length_tokens", "Length of prompts.", ["model"], buckets=TOKENS, registry=registry
        )
        self._output_length = Histogram(
            "rllm_output_length_tokens", "Length of outputs.", ["model"], buckets=TOKENS, registry=registry
        )

    def ready(self, model: str, instance: str) -> None:
        """Counters that have not counted yet are shown as 0."""
        self.accepted.labels(model, instance)
        self.in_flight.labels(model, instance)
        for reason in FinishReason:
            self._finished.labels(model, reason.value)
        for counter in (self._prompt, self._cached, self._generated, self._wasted):
            counter.labels(model)

    def finished(self, model: str, event: Event, seconds: float) -> None:
        self._finished.labels(model, event.finish or "").inc()
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
        if event.finish in _UNWANTED:
            self._wasted.labels(model).inc(usage.completion_tokens)
        self._prompt_length.labels(model).observe(usage.prompt_tokens)
        self._output_length.labels(model).observe(usage.completion_tokens)
        if event.timings is not None and usage.completion_tokens > 1:
            self._tpot.labels(model).observe(event.timings.decode_s / (usage.completion_tokens - 1))
