"""Who waits for a slot, and for how long, as the API process sees it.

What a worker says of its queue is as old as its last step; this is true at the scrape, also while a step
takes long or a worker stands still.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rllm.engine.types import EngineRequest


class QueueMetrics(Collector):
    """Sequences that were given to an instance and have not been given a slot there."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[tuple[str, str], dict[str, tuple[float, int]]] = {}
        """Since when, and how many prompt tokens; the oldest first."""

    def ready(self, model: str, instance: str) -> None:
        self._waiting.setdefault((model, instance), {})

    def accepted(self, model: str, instance: str, request: EngineRequest) -> None:
        queue = self._waiting.setdefault((model, instance), {})
        queue[request.id] = (self._clock(), len(request.prompt))

    def left(self, model: str, instance: str, request: EngineRequest) -> None:
        """It has a slot, or is over."""
        self._waiting.get((model, instance), {}).pop(request.id, None)

    def collect(self) -> Iterator[Metric]:
        labels = ["model", "instance"]
        depth = GaugeMetricFamily(
            "rllm_queue_depth", "Sequences given to an instance that have no slot yet.", labels=labels
        )
        tokens = GaugeMetricFamily(
            "rllm_queue_prompt_tokens", "Prompt tokens of the sequences that have no slot yet.", labels=labels
        )
        oldest = GaugeMetricFamily(
            "rllm_queue_oldest_seconds", "How long the first of them has waited; 0: nobody.", labels=labels
        )
        now = self._clock()
        for at, queue in self._waiting.items():
            depth.add_metric(at, len(queue))
            tokens.add_metric(at, sum(count for _, count in queue.values()))
            oldest.add_metric(at, max(0.0, now - next(iter(queue.values()))[0]) if queue else 0.0)
        yield from (depth, tokens, oldest)
