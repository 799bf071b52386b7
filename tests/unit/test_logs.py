"""Log events: one per request, machine-readable, without prompts unless asked for."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from rllm.api.records import RequestRecord
from rllm.engine.types import EngineRequest, Event, FinishReason, Timings
from rllm.observe.log_observer import LogObserver
from rllm.observe.logs import capture_libraries, make_logger
from rllm.serving.observer import InstanceState

REQUEST = EngineRequest(id="req-1.abcdefgh.0", prompt=(104, 105), max_tokens=4)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def finished(observer: LogObserver, request: EngineRequest, decode_s: float) -> None:
    timings = Timings(queue_s=0.1, prefill_s=0.2, decode_s=decode_s)
    event = Event(request_id=request.id, finish=FinishReason.STOP, timings=timings)
    observer.on_finished("q4", "q4-0", request, event, 1.0)


def record(**values: Any) -> RequestRecord:
    made = RequestRecord(request_id="req-1", method="POST", path="/v1/completions", route="/v1/completions")
    for name, value in {"status": 200, "response_id": "cmpl-123abcdefgh", **values}.items():
        setattr(made, name, value)
    return made


def test_a_request_is_one_event_with_the_times_of_its_sequence(stream: io.StringIO) -> None:
    observer = LogObserver(make_logger("json", "info", stream))
    observer.on_accepted("q4", "q4-0", REQUEST)
    finished(observer, REQUEST, decode_s=0.3)
    observer.on_request(record(model="q4", client_key="key-1", completion_tokens=7, finish_reasons=("stop",)))
    (event,) = events(stream)
    assert event["event"] == "request"
    assert event["request_id"] == "req-1"
    assert (event["model"], event["instance"], event["client"]) == ("q4", "q4-0", "key-1")
    assert (event["output_tokens"], event["finish_reason"], event["status"]) == (7, "stop", 200)
    assert (event["queue_s"], event["prefill_s"], event["decode_s"]) == (0.1, 0.2, 0.3)


def test_several_choices_report_the_longest_times(stream: io.StringIO) -> None:
    observer = LogObserver(make_logger("json", "info", stream))
    for number, decode_s in enumerate((0.3, 0.5, 0.4)):
        request = EngineRequest(id=f"req-1.abcdefgh.{number}", prompt=(1,), max_tokens=4)
        finished(observer, request, decode_s)
    observer.on_request(record())
    assert events(stream)[0]["decode_s"] == 0.5


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
    observer.on_request(record(route=route, status=status, response_id=None))
    assert events(stream)[0]["level"] == level


def test_sequences_without_a_request_do_not_pile_up(stream: io.StringIO) -> None:
    observer = LogObserver(make_logger("json", "info", stream))
    for number in range(10_500):
        finished(observer, EngineRequest(id=f"r.{number}.0", prompt=(1,), max_tokens=1), 0.1)
    assert len(observer._finished) == 10_000


def test_a_lost_worker_is_an_error_and_llama_cpps_chatter_is_not(stream: io.StringIO) -> None:
    observer = LogObserver(make_logger("json", "info", stream))
    observer.on_log("q4-0", "info", "llama_model_loader: loaded meta data", None)
    observer.on_log("q4-0", "warning", "low on memory", None)
    observer.on_instance("q4", "q4-0", InstanceState.RESTARTING, "killed by signal 9")
    warned, lost = events(stream)
    assert (warned["level"], warned["text"]) == ("warning", "low on memory")
    assert (lost["level"], lost["state"], lost["reason"]) == ("error", "restarting", "killed by signal 9")


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
