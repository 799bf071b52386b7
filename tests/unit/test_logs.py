"""Log events: one per request, machine-readable, without prompts unless asked for."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from rllm.api.http.records import RequestRecord
from rllm.engine.types import EngineRequest, FinishReason, Timings, Usage
from rllm.observe.joining import SequenceEnd, Story
from rllm.observe.log_observer import LogObserver
from rllm.observe.logs import capture_libraries, make_logger, native_sink
from rllm.serving.observer import InstanceState

REQUEST = EngineRequest(id="req-1.abcdefgh.0", prompt=(104, 105), max_tokens=4)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def end(decode_s: float = 0.3, **fields: Any) -> SequenceEnd:
    timings = Timings(queue_s=0.1, prefill_s=0.2, decode_s=decode_s)
    return SequenceEnd("q4-0", 0.0, **{"finish": FinishReason.STOP, "timings": timings, **fields})


def record(**values: Any) -> RequestRecord:
    made = RequestRecord(request_id="req-1", method="POST", path="/v1/completions", route="/v1/completions")
    for name, value in {"status": 200, "response_id": "cmpl-123abcdefgh", "num_choices": 1, **values}.items():
        setattr(made, name, value)
    return made


def test_a_request_is_one_event_with_the_times_of_its_sequence(stream: io.StringIO) -> None:
    observer = LogObserver(make_logger("json", "info", stream))
    answered = record(
        model="q4", client_key="key-1", completion_tokens=7, cached_tokens=2, finish_reasons=("stop",)
    )
    answered.prompt_tokens, answered.trace_id = 5, "ab" * 16
    answered.headers = (("x-rllm-degraded", "max_tokens=7"),)
    observer.on_request(Story(answered, (end(),)))
    (event,) = events(stream)
    assert event["event"] == "request"
    assert (event["request_id"], event["trace_id"]) == ("req-1", "ab" * 16)
    assert (event["model"], event["instance"], event["client"]) == ("q4", "q4-0", "key-1")
    assert (event["prompt_tokens"], event["output_tokens"], event["cached_tokens"]) == (5, 7, 2)
    assert (event["finish_reason"], event["status"], event["degraded"]) == ("stop", 200, "max_tokens=7")
    assert (event["queue_s"], event["prefill_s"], event["decode_s"]) == (0.1, 0.2, 0.3)


def test_several_choices_report_the_longest_times(stream: io.StringIO) -> None:
    observer = LogObserver(make_logger("json", "info", stream))
    observer.on_request(Story(record(), tuple(end(decode_s) for decode_s in (0.3, 0.5, 0.4))))
    assert events(stream)[0]["decode_s"] == 0.5


def test_a_cancelled_request_says_what_was_computed_in_vain(stream: io.StringIO) -> None:
    observer = LogObserver(make_logger("json", "info", stream))
    cancelled = end(finish=FinishReason.CANCELLED, usage=Usage(9, 4, 3))
    observer.on_request(Story(record(status=499, prompt_tokens=9), (cancelled,)))
    (event,) = events(stream)
    assert (event["finish_reason"], event["status"]) == ("cancelled", 499)
    assert (event["prompt_tokens"], event["output_tokens"], event["cached_tokens"]) == (9, 4, 3)


def test_a_request_whose_worker_was_lost_says_so(stream: io.StringIO) -> None:
    LogObserver(make_logger("json", "info", stream)).on_request(
        Story(record(error_code="worker_lost"), (SequenceEnd("q4-0", 0.0),), num_lost=1)
    )
    (event,) = events(stream)
    assert (event["finish_reason"], event["lost"], event["error_code"]) == ("unanswered", 1, "worker_lost")


def test_prompts_are_logged_only_when_asked_for(stream: io.StringIO) -> None:
    LogObserver(make_logger("json", "debug", stream)).on_accepted("q4", "q4-0", REQUEST)
    assert stream.getvalue() == ""

    def detokenize(model: str, tokens: Any) -> str:
        return bytes(tokens).decode()

    LogObserver(make_logger("json", "info", stream), detokenize).on_accepted("q4", "q4-0", REQUEST)
    assert events(stream)[0]["prompt"] == "hi"


@pytest.mark.parametrize(
    ("route", "status", "level"),
    [
        ("/health", 503, "debug"),
        ("/metrics", 200, "debug"),
        ("/x", 200, "info"),
        ("/x", 503, "info"),
        ("/x", 500, "error"),
    ],
)
def test_probes_are_quiet_and_our_own_errors_loud(
    stream: io.StringIO, route: str, status: int, level: str
) -> None:
    observer = LogObserver(make_logger("json", "debug", stream))
    observer.on_request(Story(record(route=route, status=status, response_id=None)))
    assert events(stream)[0]["level"] == level


def test_a_lost_worker_is_an_error_and_llama_cpps_chatter_is_not(stream: io.StringIO) -> None:
    observer = LogObserver(make_logger("json", "info", stream))
    observer.on_log("q4-0", "info", "llama_model_loader: loaded meta data", ())
    observer.on_log("q4-0", "warning", "low on memory", ())
    observer.on_instance("q4", "q4-0", InstanceState.RESTARTING, "killed by signal 9")
    warned, lost = events(stream)
    assert (warned["level"], warned["text"]) == ("warning", "low on memory")
    assert (lost["level"], lost["state"], lost["reason"]) == ("error", "restarting", "killed by signal 9")


def test_a_workers_line_names_the_requests_that_it_is_about(stream: io.StringIO) -> None:
    observer = LogObserver(make_logger("json", "info", stream))
    observer.on_log("q4-0", "warning", "failed", ["my.id.abcdefgh.0"])
    observer.on_log("q4-0", "error", "no room", ["a.abcdefgh.0", "a.abcdefgh.1", "b.abcdefgh.0"])
    one, several = events(stream)
    assert one["request_id"] == "my.id"
    assert several["request_ids"] == ["a", "b"]


def test_llama_cpps_lines_of_this_process_come_by_level(stream: io.StringIO) -> None:
    sink = native_sink(make_logger("json", "info", stream))
    sink("info", "load: special tokens cache size = 3")
    sink("warning", "load: bad special token")
    (event,) = events(stream)
    assert (event["event"], event["level"], event["text"]) == (
        "llama.cpp",
        "warning",
        "load: bad special token",
    )


def test_the_console_form_is_for_the_eye(stream: io.StringIO) -> None:
    make_logger("console", "info", stream).info("ready", port=8000)
    assert "ready" in stream.getvalue()
    assert "port=8000" in stream.getvalue()


def test_a_file_gets_json_by_default(stream: io.StringIO) -> None:
    make_logger("auto", "info", stream).info("ready")
    assert events(stream)[0]["event"] == "ready"


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield root
    root.handlers, root.level = handlers, level


def test_libraries_log_into_the_same_stream(stream: io.StringIO, root_logger: logging.Logger) -> None:
    capture_libraries(make_logger("json", "info", stream), "info")
    logging.getLogger("uvicorn.error").info("started")
    logging.getLogger("asyncio").warning("slow callback: %s", "x")
    (event,) = events(stream)
    assert (event["logger"], event["event"], event["level"]) == ("asyncio", "slow callback: x", "warning")


def test_a_bug_of_ours_is_logged_with_the_request_it_befell(
    stream: io.StringIO, root_logger: logging.Logger
) -> None:
    capture_libraries(make_logger("json", "info", stream), "info")
    logging.getLogger("rllm.api").error("internal error", extra={"request_id": "req-1", "path": "/x"})
    (event,) = events(stream)
    assert (event["event"], event["request_id"], event["path"]) == ("internal error", "req-1", "/x")
