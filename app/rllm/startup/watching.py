"""Everybody who watches the server: metrics, log and traces, made from the operator's settings."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from structlog.typing import FilteringBoundLogger

from rllm.api.http.records import Headers, RequestRecord
from rllm.errors import StartError
from rllm.observe import otlp
from rllm.observe.gpu import Gpus
from rllm.observe.history import History
from rllm.observe.joining import Joiner
from rllm.observe.log_observer import Detokenize, LogObserver
from rllm.observe.metrics import Metrics
from rllm.serving.observer import Observer, Observers
from rllm.settings.settings import Settings

if TYPE_CHECKING:
    from rllm.observe.tracing import Tracing


class Watchers:
    """``observer`` hears of the serving layer, `on_start` and `on_request` of HTTP."""

    def __init__(
        self,
        settings: Settings,
        logger: FilteringBoundLogger,
        gpus: Gpus,
        detokenize: Detokenize,
        others: Sequence[Observer] = (),
        num_lines_dropped: Callable[[], int] = lambda: 0,
    ) -> None:
        """``num_lines_dropped``: of the log, so far.

        Raises:
            StartError: traces are asked for and cannot be made.
        """
        self._metrics: Metrics | None = None
        if settings.observe.metrics:
            vllm_names = settings.observe.metrics_compat == "vllm"
            self._metrics = Metrics(gpus, vllm_names=vllm_names, num_lines_dropped=num_lines_dropped)
        self._tracing = _tracing(settings, logger)
        log = LogObserver(logger, detokenize if settings.logging.prompts else None)
        listeners = [log.on_request] if self._tracing is None else [log.on_request, self._tracing.on_request]
        self._joiner = Joiner(*listeners)
        self.history = History() if settings.observe.ui else None
        """Of the live page."""
        observers: list[Observer] = [log, self._joiner, *others]
        observers += [more for more in (self._metrics, self.history) if more is not None]
        self.observer: Observer = Observers(*observers)

    @property
    def render_metrics(self) -> Callable[[], bytes] | None:
        return None if self._metrics is None else self._metrics.render

    def know_keys(self, names: Iterable[str]) -> None:
        if self._metrics is not None:
            self._metrics.know_keys(names)

    def on_start(self, record: RequestRecord, headers: Headers) -> None:
        if self._metrics is not None:
            self._metrics.on_start(record)
        if self._tracing is not None:
            self._tracing.on_start(record, headers)

    def on_request(self, record: RequestRecord) -> None:
        if self._metrics is not None:
            self._metrics.on_request(record)
        self._joiner.on_request(record)

    def on_fault(self) -> None:
        if self._metrics is not None:
            self._metrics.on_fault()

    async def close(self) -> None:
        """Nothing is watched any more; traces that were not sent yet are."""
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)


def _tracing(settings: Settings, logger: FilteringBoundLogger) -> Tracing | None:
    if not otlp.is_wanted(settings.observe.otlp_endpoint, os.environ):
        return None
    try:
        return otlp.start_tracing(settings.observe.otlp_endpoint, os.environ)
    except StartError as error:
        if settings.observe.otlp_endpoint:
            raise
        logger.warning("not tracing", reason=str(error))  # the variables may be there for others
        return None
