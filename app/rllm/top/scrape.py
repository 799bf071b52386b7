"""One look at a server's /metrics: fetched, parsed, and asked for numbers."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from rllm.printable import printable

Sample = tuple[Mapping[str, str], float]
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""The server that is watched is asked itself, whatever ``http_proxy`` says."""


class ScrapeError(Exception):
    """No metrics; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class Reading:
    """All samples of one scrape, by name."""

    at: float
    """On the monotonic clock."""
    samples: Mapping[str, list[Sample]] = field(repr=False)

    def select(self, name: str, **labels: str) -> Iterator[Sample]:
        for found, value in self.samples.get(name, ()):
            if all(found.get(label) == wanted for label, wanted in labels.items()):
                yield found, value

    def total(self, name: str, **labels: str) -> float | None:
        """The sum over whatever labels are not given; None where there is no such sample."""
        values = [value for _, value in self.select(name, **labels)]
        return sum(values) if values else None

    def labels(self, name: str, label: str, **labels: str) -> list[str]:
        """The values a label has, in the order of the server."""
        return list(dict.fromkeys(found[label] for found, _ in self.select(name, **labels) if label in found))

    def buckets(self, name: str, **labels: str) -> dict[float, float]:
        """Cumulative counts by upper bound, summed over whatever labels are not given."""
        counts: dict[float, float] = {}
        for found, value in self.select(f"{name}_bucket", **labels):
            bound = float(found["le"])
            counts[bound] = counts.get(bound, 0.0) + value
        return counts


def parse(text: str, at: float) -> Reading:
    """
    Raises:
        ValueError: this is no text of Prometheus.
    """
    samples: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {name: printable(value) for name, value in sample.labels.items()}
            samples.setdefault(sample.name, []).append((labels, sample.value))
    return Reading(at, samples)


class Scraper:
    def __init__(self, url: str, key: str | None = None, timeout_s: float = 5.0) -> None:
        """
        Raises:
            ScrapeError: this is no address of an HTTP server.
        """
        self.url = _base(url)
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._timeout_s = timeout_s

    def read(self) -> Reading:
        """
        Raises:
            ScrapeError: nobody answers, a key is needed, or it is no rllm.
        """
        try:
            text = self._fetch()
        except urllib.error.HTTPError as error:
            with error:
                raise ScrapeError(self._refusal(error.code)) from None
        except urllib.error.URLError as error:
            raise ScrapeError(f"{self.url} does not answer: {_reason(error.reason)}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ScrapeError(f"{self.url} does not answer: {_reason(error)}") from None
        try:
            reading = parse(text, time.monotonic())
        except ValueError:
            reading = None
        if reading is None or not reading.samples.get("rllm_build_info"):
            raise ScrapeError(f"{self.url}/metrics answers, but not as rllm-serve does")
        return reading

    def _fetch(self) -> str:
        request = urllib.request.Request(f"{self.url}/metrics", headers=self._headers)
        with _DIRECT.open(request, timeout=self._timeout_s) as response:
            body: bytes = response.read()
        return body.decode("utf-8", "replace")

    def _refusal(self, status: int) -> str:
        if status == 401:
            return f"{self.url} wants an API key: --api-key KEY, or RLLM_API_KEY in the environment"
        if status == 403:
            return f"{self.url} shows its metrics to an operator's key only: operator = true in the keys file"
        return f"{self.url}/metrics answers with status {status}"


def quantile(buckets: Mapping[float, float], q: float) -> float | None:
    """As histogram_quantile does it: linear within a bucket. None where nothing was observed."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    rank, lower, below = q * total, 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= rank and count > below:
            if bound == float("inf"):
                return lower  # beyond the last bound nothing is known
            return lower + (bound - lower) * max(0.0, rank - below) / (count - below)
        lower, below = bound, count
    return lower


def difference(newer: Mapping[float, float], older: Mapping[float, float]) -> dict[float, float]:
    """What came between two looks; after a restart of the server: everything."""
    between = {bound: count - older.get(bound, 0.0) for bound, count in newer.items()}
    return dict(newer) if _any_negative(between.values()) else between


def _any_negative(values: Iterable[float]) -> bool:
    return any(value < 0 for value in values)


def _base(url: str) -> str:
    url = url if "://" in url else f"http://{url}"
    if not url.startswith(("http://", "https://")):
        raise ScrapeError(f"{url} is no http:// or https:// address")
    return url.rstrip("/").removesuffix("/metrics").removesuffix("/v1")


def _reason(error: object) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]
