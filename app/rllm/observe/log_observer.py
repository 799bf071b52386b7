"""What happens, as log events: one per HTTP request, and one for whatever befalls an instance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from structlog.typing import FilteringBoundLogger

from rllm.api.http.records import PROBES
from rllm.backends.options import Fallback
from rllm.engine.types import EngineRequest, ModelInfo
from rllm.observe.joining import Story, request_id_of
from rllm.observe.logs import NATIVE_LEVELS
from rllm.serving.breaker import BreakerState
from rllm.serving.observer import InstanceState, Observer
from rllm.serving.timeouts import Limit

Detokenize = Callable[[str, Sequence[int]], str]
"""(model, tokens) -> text."""


class LogObserver(Observer):
    """``prompts`` turns tokens back into text where prompts are to be logged; ``None`` keeps them out."""

    def __init__(self, logger: FilteringBoundLogger, prompts: Detokenize | None = None) -> None:
        self._logger = logger
        self._prompts = prompts

    def on_request(self, story: Story) -> None:
        """The one event of a request: what HTTP knows, and what its sequences reported."""
        record = story.record
        fields = {
            "request_id": record.request_id,
            "trace_id": record.trace_id,
            "method": record.method,
            "route": record.route,
            "status": record.status,
            "error_code": record.error_code,
            "error_param": record.error_param,
            "client": record.client_key,
            "model": record.model,
            "degraded": dict(record.headers).get("x-rllm-degraded"),
            "duration_s": round(record.duration_s, 4),
            "ttft_s": _rounded(record.ttft_s),
            "prepare_s": _rounded(record.prepare_s),
        }
        if record.response_id is not None:
            fields |= {"response_id": record.response_id, "streamed": record.streamed}
            fields |= _of_sequences(story)
        given = {name: value for name, value in fields.items() if value is not None}
        log = self._logger.debug if record.route in PROBES else self._logger.info
        (self._logger.error if record.status >= 500 and record.status != 503 else log)("request", **given)

    def on_accepted(self, model: str, instance: str, request: EngineRequest) -> None:
        if self._prompts is not None:
            text = self._prompts(model, request.prompt)
            request_id = request_id_of(request.id)
            self._logger.info("prompt", request_id=request_id, sequence=request.id, model=model, prompt=text)

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
        self._logger.warning(
            "sequence lost",
            request_id=request_id_of(request.id),
            sequence=request.id,
            instance=instance,
            retried=retried,
        )

    def on_timeout(self, model: str, limit: Limit) -> None:
        self._logger.warning("timeout", model=model, limit=limit.value)

    def on_start_failed(self, model: str, instance: str, reason: str) -> None:
        self._logger.error("start failed", model=model, instance=instance, reason=reason)

    def on_stall(self, model: str, instance: str, seconds: float) -> None:
        self._logger.error("stall", model=model, instance=instance, seconds=round(seconds, 1))

    def on_fewer_slots(self, model: str, instance: str, before: int, after: int) -> None:
        self._logger.error("out of memory", model=model, instance=instance, slots_before=before, slots=after)

    def on_crash_at_start(self, model: str, instance: str, way: str, reason: str) -> None:
        self._logger.error("crash at start", model=model, instance=instance, settings=way, reason=reason)

    def on_fallback(self, model: str, instance: str, fallback: Fallback) -> None:
        self._logger.warning(
            "fallback", model=model, instance=instance, options=fallback.options, reason=fallback.reason
        )

    def on_not_served(self, model: str, reason: str) -> None:
        self._logger.error("model not served", model=model, reason=reason)

    def on_breaker(self, model: str, instance: str, state: BreakerState) -> None:
        self._logger.warning("breaker", model=model, instance=instance, state=state.value)

    def on_degraded(self, model: str, level: int, measures: str) -> None:
        self._logger.warning("degraded", model=model, level=level, measures=measures)

    def on_log(self, instance: str, level: str, text: str, sequences: Sequence[str]) -> None:
        log = getattr(self._logger, NATIVE_LEVELS[level])
        log("worker", instance=instance, text=text, **_requests(sequences))


def _of_sequences(story: Story) -> dict[str, Any]:
    """Of the times of several choices the longest: they ran beside each other."""
    ends = story.sequences
    fields: dict[str, Any] = {
        "instance": ",".join(sorted({end.instance for end in ends})) or None,
        "finish_reason": ",".join(story.finish_reasons) or None,
        "prompt_tokens": story.record.prompt_tokens,
        "output_tokens": story.output_tokens,
        "cached_tokens": story.cached_tokens,
        "lost": story.num_lost or None,
        "error": next((end.error for end in ends if end.error is not None), None),
    }
    timings = [end.timings for end in ends if end.timings is not None]
    for name in ("queue_s", "prefill_s", "decode_s"):
        fields[name] = _rounded(max((getattr(timing, name) for timing in timings), default=None))
    return fields


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 4)


def _requests(sequences: Sequence[str]) -> dict[str, Any]:
    """The field that names the requests of a worker's line."""
    ids = list(dict.fromkeys(map(request_id_of, sequences)))
    if len(ids) == 1:
        return {"request_id": ids[0]}
    return {"request_ids": ids} if ids else {}
