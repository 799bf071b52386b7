"""What happens, as log events: one per HTTP request, and one for whatever befalls an instance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from structlog.typing import FilteringBoundLogger

from rllm.api.records import RequestRecord
from rllm.engine.types import EngineRequest, Event, ModelInfo
from rllm.serving.breaker import BreakerState
from rllm.serving.observer import InstanceState, Observer
from rllm.serving.timeouts import Limit

Detokenize = Callable[[str, Sequence[int]], str]
"""(model, tokens) -> text."""

_MAX_KEPT = 10_000
_QUIET_ROUTES = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})
_LEVELS = {"debug": "debug", "info": "debug", "warning": "warning", "error": "error"}
"""llama.cpp says hundreds of things at its level "info" while it loads: they are details here."""


class LogObserver(Observer):
    """``prompts`` turns tokens back into text where prompts are to be logged; ``None`` keeps them out."""

    def __init__(self, logger: FilteringBoundLogger, prompts: Detokenize | None = None) -> None:
        self._logger = logger
        self._prompts = prompts
        self._finished: dict[str, list[dict[str, Any]]] = {}

    def on_request(self, record: RequestRecord) -> None:
        """The one event of a request: what HTTP knows, and what its sequences reported."""
        fields: dict[str, Any] = {
            "request_id": record.request_id,
            "method": record.method,
            "route": record.route,
            "status": record.status,
            "duration_s": round(record.duration_s, 4),
        }
        optional = {
            "error_code": record.error_code,
            "client": record.client_key,
            "model": record.model,
            "finish_reason": ",".join(record.finish_reasons) or None,
            "ttft_s": None if record.ttft_s is None else round(record.ttft_s, 4),
            "prepare_s": None if record.prepare_s is None else round(record.prepare_s, 4),
        }
        fields |= {name: value for name, value in optional.items() if value is not None}
        if record.response_id is not None:
            fields |= {
                "response_id": record.response_id,
                "streamed": record.streamed,
                "prompt_tokens": record.prompt_tokens,
                "output_tokens": record.completion_tokens,
                "cached_tokens": record.cached_tokens,
            }
            done = self._finished.pop(f"{record.request_id}.{record.response_id[-8:]}", [])
            fields |= _merged(done)
        log = self._logger.debug if record.route in _QUIET_ROUTES else self._logger.info
        (self._logger.error if record.status >= 500 and record.status != 503 else log)("request", **fields)

    def on_accepted(self, model: str, instance: str, request: EngineRequest) -> None:
        if self._prompts is not None:
            text = self._prompts(model, request.prompt)
            self._logger.info("prompt", sequence=request.id, model=model, prompt=text)

    def on_finished(
        self, model: str, instance: str, request: EngineRequest, event: Event, seconds: float
    ) -> None:
        fields: dict[str, Any] = {"instance": instance}
        if event.timings is not None:
            fields |= {
                "queue_s": round(event.timings.queue_s, 4),
                "prefill_s": round(event.timings.prefill_s, 4),
                "decode_s": round(event.timings.decode_s, 4),
            }
        if event.error is not None:
            fields["error"] = event.error
        if len(self._finished) >= _MAX_KEPT:  # only sequences without an HTTP request stay here
            del self._finished[next(iter(self._finished))]
        self._finished.setdefault(request.id.rpartition(".")[0], []).append(fields)

    def on_ready(self, model: str, instance: str, info: ModelInfo, pid: int) -> None:
        self._logger.info(
            "worker ready",
            model=model,
            instance=instance,
            pid=pid,
            description=info.description,
            slots=info.slots,
            ctx_per_slot=info.ctx_per_slot,
            kv_unified=info.kv_unified,
            device=info.device,
            buffers=info.buffers,
            load_s=round(info.load_s, 3),
        )

    def on_instance(self, model: str, instance: str, state: InstanceState, reason: str) -> None:
        lost = state in (InstanceState.RESTARTING, InstanceState.FAILED)
        log = self._logger.error if lost else self._logger.debug
        log("instance", model=model, instance=instance, state=state.value, reason=reason)

    def on_lost(self, model: str, instance: str, request: EngineRequest, retried: bool) -> None:
        self._logger.warning("sequence lost", sequence=request.id, instance=instance, retried=retried)

    def on_timeout(self, model: str, limit: Limit) -> None:
        self._logger.warning("timeout", model=model, limit=limit.value)

    def on_stall(self, model: str, instance: str, seconds: float) -> None:
        self._logger.error("stall", model=model, instance=instance, seconds=round(seconds, 1))

    def on_fewer_slots(self, model: str, instance: str, before: int, after: int) -> None:
        self._logger.error("out of memory", model=model, instance=instance, slots_before=before, slots=after)

    def on_breaker(self, model: str, instance: str, state: BreakerState) -> None:
        self._logger.warning("breaker", model=model, instance=instance, state=state.value)

    def on_degraded(self, model: str, level: int, measures: str) -> None:
        self._logger.warning("degraded", model=model, level=level, measures=measures)

    def on_log(self, instance: str, level: str, text: str, request_id: str | None) -> None:
        fields = {"request_id": request_id} if request_id else {}
        getattr(self._logger, _LEVELS[level])("worker", instance=instance, text=text, **fields)


def _merged(sequences: list[dict[str, Any]]) -> dict[str, Any]:
    """Of several choices the longest times; they ran beside each other."""
    merged: dict[str, Any] = {}
    for fields in sequences:
        for name, value in fields.items():
            known = merged.get(name)
            merged[name] = max(known, value) if isinstance(known, float) else value
    return merged
