"""Metrics of HTTP requests: one observation each, when it is over, and how many are under way."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from rllm.api.http.records import PROBES, RequestRecord
from rllm.observe.buckets import SECONDS

_CAUSES = ("client_gone", "client_too_slow")
_RATE_LIMITED = "rate_limit_exceeded"


class HttpMetrics:
    """Requests of probes (`PROBES`) are in ``rllm_requests_total`` only."""

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
        self._received = Counter(
            "rllm_requests_received",
            "HTTP requests that have arrived, probes left out: those that are over, and those in flight.",
            registry=registry,
        )
        self._in_flight = Gauge(
            "rllm_requests_in_flight",
            "HTTP requests that have arrived and are not over, probes left out.",
            registry=registry,
        )
        self._rate_limited = Counter(
            "rllm_rate_limited_total",
            "Requests refused for the limits of their API key, by its name.",
            ["key"],
            registry=registry,
        )
        self._cancellations = Counter(
            "rllm_cancellations_total",
            "Requests ended because their client went away, or did not read what it was sent.",
            ["model", "cause"],
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
            "From the arrival of a request to the first token from its worker.",
            ["route", "model"],
            buckets=SECONDS,
            registry=registry,
        )

    def ready(self, model: str) -> None:
        """Counters that have not counted yet are shown as 0."""
        for cause in _CAUSES:
            self._cancellations.labels(model, cause)

    def know_keys(self, names: Iterable[str]) -> None:
        for name in names:
            self._rate_limited.labels(name)

    def arrived(self, record: RequestRecord) -> None:
        if record.path not in PROBES:
            self._received.inc()
            self._in_flight.inc()

    def over(self, record: RequestRecord, model: str) -> None:
        if record.path not in PROBES:
            self._in_flight.dec()
        reasons = set(record.finish_reasons)
        reason = "mixed" if len(reasons) > 1 else next(iter(reasons), "")
        self._requests.labels(record.route, model, record.status, reason).inc()
        if record.error_code is not None:
            self._errors.labels(record.route, record.error_code).inc()
            if record.error_code == _RATE_LIMITED and record.client_key is not None:
                self._rate_limited.labels(record.client_key).inc()
        if record.status == 499:
            cause = "client_too_slow" if record.error_code == "client_too_slow" else "client_gone"
            self._cancellations.labels(model, cause).inc()
        self._duration.labels(record.route).observe(record.duration_s)
        if record.ttft_s is not None:
            self._first_token.labels(record.route, model).observe(record.ttft_s)
