"""Requests as OpenTelemetry traces: one span for the request, and under it where its time went.

    POST /v1/chat/completions                 from arrival to the last byte
    ├── prepare                               template, tokens, admission
    ├── queue, prefill, decode                of each choice, as the worker timed them
    └── stream                                from the first byte sent to the last

The parent is taken from the request's ``traceparent`` (W3C Trace Context), and the answer carries one of its
own. Spans below the request's are made when it is over, from the same numbers that are logged: nothing is
done for a token. This module is imported only where tracing is on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from rllm import __version__
from rllm.api.http.records import Headers, RequestRecord
from rllm.observe.joining import SequenceEnd, Story

CLOSE_S = 2.0
_TAKEN = (b"traceparent", b"tracestate")
Attributes = Mapping[str, str | int | float | bool | tuple[str, ...] | None]


class Tracing:
    """Traces requests that may compute something: every POST."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("rllm", __version__)
        self._context = TraceContextTextMapPropagator()
        self._spans: dict[int, tuple[Span, int]] = {}
        """By identity of the record: the request's span, and what makes its times Unix times."""

    def on_start(self, record: RequestRecord, headers: Headers) -> None:
        if record.method != "POST":
            return
        carrier = {name.decode(): value.decode("latin-1") for name, value in headers if name in _TAKEN}
        offset_ns = time.time_ns() - time.monotonic_ns()
        span = self._tracer.start_span(
            record.method,
            context=self._context.extract(carrier, Context()),
            kind=SpanKind.SERVER,
            start_time=_unix_ns(record.started, offset_ns),
        )
        self._spans[id(record)] = (span, offset_ns)
        record.trace_id = format_trace_id(span.get_span_context().trace_id)
        answer: dict[str, str] = {}
        self._context.inject(answer, set_span_in_context(span, Context()))
        record.headers += tuple(answer.items())

    def on_request(self, story: Story) -> None:
        record = story.record
        span, offset_ns = self._spans.pop(id(record), (None, 0))
        if span is None:
            return
        if span.is_recording():
            span.update_name(f"{record.method} {record.route}")
            _set(span, _attributes(story))
            if record.status >= 500 or (record.status < 400 and record.error_code is not None):
                span.set_status(Status(StatusCode.ERROR, record.error_code))
            self._children(story, span, offset_ns)
        span.end(_unix_ns(record.started + record.duration_s, offset_ns))

    def close(self) -> None:
        """Send what is left; given up where no collector answers, for a server that is told to stop stops."""
        flush = threading.Thread(target=self._provider.shutdown, name="trace-flush", daemon=True)
        flush.start()
        flush.join(CLOSE_S)

    def _children(self, story: Story, parent: Span, offset_ns: int) -> None:
        record, context = story.record, set_span_in_context(parent, Context())

        def child(name: str, start: float, end: float, attributes: Attributes) -> None:
            span = self._tracer.start_span(name, context, start_time=_unix_ns(start, offset_ns))
            _set(span, attributes)
            span.end(_unix_ns(end, offset_ns))

        if record.prepare_s is not None:
            child("prepare", record.started, record.started + record.prepare_s, {})
        for index, end in enumerate(story.sequences):
            for name, start, stop in _phases(end):
                child(name, start, stop, {"rllm.instance": end.instance, "rllm.choice": index})
        if record.streamed and record.ttft_s is not None:
            child("stream", record.started + record.ttft_s, record.started + record.duration_s, {})


def _phases(end: SequenceEnd) -> list[tuple[str, float, float]]:
    """Those that it came to; one that was lost with its worker has none."""
    if end.timings is None:
        return []
    phases, at = [], end.accepted_at
    for name in ("queue", "prefill", "decode"):
        seconds: float = getattr(end.timings, f"{name}_s")
        if seconds > 0 or name == "queue":
            phases.append((name, at, at + seconds))
        at += seconds
    return phases


def _attributes(story: Story) -> Attributes:
    """OpenTelemetry's names where it has some; ours for the rest."""
    record = story.record
    return {
        "http.request.method": record.method,
        "http.route": record.route,
        "http.response.status_code": record.status,
        "error.type": record.error_code,
        "gen_ai.request.model": record.model,
        "gen_ai.response.id": record.response_id,
        "gen_ai.response.finish_reasons": story.finish_reasons or None,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": story.output_tokens,
        "rllm.request_id": record.request_id,
        "rllm.client": record.client_key,
        "rllm.cached_tokens": story.cached_tokens,
        "rllm.degraded": dict(record.headers).get("x-rllm-degraded"),
        "rllm.lost": story.num_lost or None,
    }


def _set(span: Span, attributes: Attributes) -> None:
    for name, value in attributes.items():
        if value is not None:
            span.set_attribute(name, value)


def _unix_ns(monotonic_s: float, offset_ns: int) -> int:
    return round(monotonic_s * 1e9) + offset_ns
