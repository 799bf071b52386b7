"""A request becomes a trace whose times are those that are logged; without the option nothing is imported."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler
from opentelemetry.trace import SpanKind, StatusCode

from rllm.api.http.records import RequestRecord
from rllm.engine.types import FinishReason, Timings, Usage
from rllm.errors import StartError
from rllm.observe.joining import SequenceEnd, Story
from rllm.observe.otlp import is_wanted, start_tracing
from rllm.observe.tracing import Tracing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NS = 1e-9


class Traced:
    """What a tracer made of a request."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider)

    def tell(self, story: Story, traceparent: str | None = None) -> None:
        headers = [(b"traceparent", traceparent.encode())] if traceparent else []
        self.tracing.on_start(story.record, headers)
        self.tracing.on_request(story)

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._exporter.get_finished_spans()}


def story(**values: object) -> Story:
    record = RequestRecord(request_id="req-1", method="POST", path="/v1/x", route="/v1/x", started=1000.0)
    defaults = {"status": 200, "model": "q4", "response_id": "cmpl-1", "streamed": True, "num_choices": 1}
    times = {"prepare_s": 0.01, "ttft_s": 0.34, "duration_s": 0.75}
    for name, value in {**defaults, **times, "finish_reasons": ("stop",), **values}.items():
        setattr(record, name, value)
    end = SequenceEnd(
        "q4-0", 1000.01, FinishReason.STOP, usage=Usage(5, 7, 2), timings=Timings(0.1, 0.2, 0.4)
    )
    return Story(record, (end,))


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) * NS


def test_a_request_is_a_span_with_its_phases_below() -> None:
    traced = Traced()
    told = story(prompt_tokens=5, completion_tokens=7, client_key="team-a")
    traced.tell(told)
    spans = traced.spans
    request = spans.pop("POST /v1/x")
    assert spans.keys() == {"prepare", "queue", "prefill", "decode", "stream"}
    assert request.kind is SpanKind.SERVER
    assert request.attributes is not None
    assert request.attributes["rllm.request_id"] == "req-1"
    assert request.attributes["rllm.client"] == "team-a"
    assert request.attributes["gen_ai.usage.output_tokens"] == 7
    assert request.attributes["http.response.status_code"] == 200
    for span in spans.values():
        assert span.parent is not None
        assert request.context is not None
        assert span.parent.span_id == request.context.span_id
    lengths = {name: seconds(span) for name, span in spans.items()}
    expected = {"prepare": 0.01, "queue": 0.1, "prefill": 0.2, "decode": 0.4, "stream": 0.41}
    assert lengths == pytest.approx(expected, abs=1e-6)
    assert seconds(request) == pytest.approx(0.75, abs=1e-6)
    # one follows the other
    assert spans["queue"].end_time == spans["prefill"].start_time
    assert spans["prefill"].end_time == spans["decode"].start_time


def test_the_callers_trace_is_continued_and_told_back() -> None:
    traced = Traced()
    told = story()
    traced.tell(told, f"00-{TRACE}-{PARENT}-01")
    request = traced.spans["POST /v1/x"]
    assert request.context is not None
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == PARENT
    assert told.record.trace_id == f"{request.context.trace_id:032x}" == TRACE
    assert dict(told.record.headers)["traceparent"] == f"00-{TRACE}-{request.context.span_id:016x}-01"


@pytest.mark.parametrize("wrong", ["", "00-xyz", f"00-{'0' * 32}-{PARENT}-01"])
def test_a_wrong_traceparent_begins_a_new_trace(wrong: str) -> None:
    traced = Traced()
    told = story()
    traced.tell(told, wrong)
    assert traced.spans["POST /v1/x"].parent is None
    assert told.record.trace_id not in (None, TRACE, "0" * 32)


def test_what_is_not_sampled_is_not_exported_but_passed_on() -> None:
    traced = Traced(ParentBased(ALWAYS_OFF))
    told = story()
    traced.tell(told)
    assert traced.spans == {}
    flags = dict(told.record.headers)["traceparent"].rpartition("-")[2]
    assert not int(flags, 16) & 1


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (200, None, StatusCode.UNSET),
        (200, "worker_lost", StatusCode.ERROR),
        (429, "rate_limit_exceeded", StatusCode.UNSET),
        (499, None, StatusCode.UNSET),
        (504, "request_timeout", StatusCode.ERROR),
    ],
)
def test_a_fault_of_ours_is_an_error(status: int, code: str | None, expected: StatusCode) -> None:
    traced = Traced()
    traced.tell(story(status=status, error_code=code))
    assert traced.spans["POST /v1/x"].status.status_code is expected


def test_a_refused_request_has_no_phases() -> None:
    traced = Traced()
    record = story(status=503, ttft_s=None, prepare_s=None, finish_reasons=()).record
    traced.tell(Story(record))
    assert traced.spans.keys() == {"POST /v1/x"}


def test_whoever_only_looks_is_not_traced() -> None:
    traced = Traced()
    told = story(method="GET")
    traced.tell(told)
    assert traced.spans == {}
    assert told.record.trace_id is None


@pytest.mark.parametrize(
    ("endpoint", "environ", "wanted"),
    [
        ("", {}, False),
        ("http://there:4318", {}, True),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://there:4318"}, True),
        ("", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://there/v1/traces"}, True),
        ("http://there:4318", {"OTEL_SDK_DISABLED": "true"}, False),
        ("", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_who_decides(endpoint: str, environ: Mapping[str, str], wanted: bool) -> None:
    assert is_wanted(endpoint, environ) is wanted


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(StartError, match="pip install opentelemetry-sdk"):
        start_tracing("http://there:4318", {})


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(StartError, match="must be http"):
        start_tracing("there:4318", {})
    with pytest.raises(StartError, match="grpc"):
        start_tracing("", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
