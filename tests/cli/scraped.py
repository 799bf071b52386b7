"""What /metrics says, read with Prometheus' own parser, and what must be true of it at any moment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

PROBES = ("/health", "/health/live", "/health/ready", "/metrics")


class Scraped:
    """One scrape. Reading it checks it."""

    def __init__(self, text: str) -> None:
        self._families = {family.name: family for family in text_string_to_metric_families(text)}
        self.values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self._families.values()
            for sample in family.samples
        }
        for family in self._families.values():
            if family.type == "histogram":
                _check_histogram(family)
        self._check_flows()

    def total(self, name: str, **labels: str) -> float:
        """Over whatever labels are not given."""
        wanted = set(labels.items())
        return sum(value for (found, at), value in self.values.items() if found == name and wanted <= at)

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Totals by one label, without zeros."""
        wanted, found = set(labels.items()), {}
        for (sample, at), value in self.values.items():
            if sample == name and wanted <= at and value:
                key = dict(at)[label]
                found[key] = found.get(key, 0.0) + value
        return found

    def counters(self) -> Iterator[tuple[object, float]]:
        """Whatever may only grow; a process that is replaced begins anew."""
        for key, value in self.values.items():
            if key[0].endswith(("_total", "_bucket", "_count", "_sum")) and "_process_" not in key[0]:
                yield key, value

    def check_grown_since(self, earlier: Scraped) -> None:
        now = dict(self.counters())
        shrunk = [key for key, value in earlier.counters() if now.get(key, -1.0) < value - 1e-9]
        assert not shrunk

    @property
    def is_quiet(self) -> bool:
        return not self.total("rllm_requests_in_flight") and not self.total("rllm_sequences_in_flight")

    def requests(self) -> float:
        """HTTP requests that are over; those of probes left out."""
        by_route = self.by("rllm_requests_total", "route")
        return sum(count for route, count in by_route.items() if route not in PROBES)

    def _check_flows(self) -> None:
        """What came in is over or under way."""
        assert self.total("rllm_requests_received_total") == self.requests() + self.total(
            "rllm_requests_in_flight"
        )
        assert self.total("rllm_sequences_accepted_total") == (
            self.total("rllm_sequences_finished_total")
            + self.total("rllm_sequences_lost_total")
            + self.total("rllm_sequences_in_flight")
        )
        assert self.total("rllm_sequences_finished_total") == self.total("rllm_e2e_latency_seconds_count")
        assert self.total("rllm_requests_total") == self.total("rllm_request_duration_seconds_count")
        assert self.total("rllm_step_seconds_count") == self.total("rllm_step_tokens_count")
        assert self.total("rllm_decode_steps_total") == self.total("rllm_decode_batch_size_count")
        assert self.total("rllm_decode_tokens_total") == self.total("rllm_decode_batch_size_sum")
        computed = self.total("rllm_decode_tokens_total") + self.total("rllm_prefill_tokens_total")
        assert self.total("rllm_step_tokens_sum") == computed


def _check_histogram(family: Metric) -> None:
    """Buckets are cumulative, and the last one is the count."""
    series: dict[frozenset[tuple[str, str]], dict[float, float]] = {}
    counts: dict[frozenset[tuple[str, str]], float] = {}
    for sample in family.samples:
        labels: Mapping[str, str] = {name: value for name, value in sample.labels.items() if name != "le"}
        key = frozenset(labels.items())
        if sample.name.endswith("_bucket"):
            series.setdefault(key, {})[float(sample.labels["le"])] = sample.value
        elif sample.name.endswith("_count"):
            counts[key] = sample.value
    assert series.keys() == counts.keys()
    for key, buckets in series.items():
        values = [buckets[bound] for bound in sorted(buckets)]
        assert values == sorted(values), (family.name, key)
        assert buckets[math.inf] == counts[key], (family.name, key)
