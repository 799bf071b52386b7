"""One id leads from the client's answer to the API's log, the worker's log and the trace."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.collector import Collector
from tests.cli.server import RunningServer, running

SMALL = ("--slots", "2", "--ctx-size", "8192", "--threads", "1")
TRACE = "0af7651916cd43dd8448eb211c80319c"
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "50"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as started:
        yield started


def ask(server: RunningServer, headers: dict[str, str], **body: Any) -> tuple[dict[str, str], str]:
    """Headers and body of the answer to a completion."""
    connection = server.connect()
    try:
        text = json.dumps({"prompt": "once upon", "max_tokens": 30, "ignore_eos": True, **body})
        connection.request("POST", "/v1/completions", text, {"content-type": "application/json", **headers})
        response = connection.getresponse()
        return {name.lower(): value for name, value in response.getheaders()}, response.read().decode()
    finally:
        connection.close()


def attributes(span: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


def lasted(span: Any) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


def test_one_id_is_found_in_answer_logs_and_trace(tiny_model: Path, collector: Collector) -> None:
    options = ("--log-level", "debug", "--otlp-endpoint", collector.url)
    with running("--gguf", tiny_model, *SMALL, *options, **QUICK) as server:
        given = {"x-request-id": "find-me.7", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
        headers, _ = ask(server, given, stream=True)
        server.wait_for('find-me.*"event":"request"')
        spans = collector.wait_for("POST /v1/completions")
        events = server.events()

    assert headers["x-request-id"] == "find-me.7"
    assert headers["traceparent"].startswith(f"00-{TRACE}-")
    (logged,) = [e for e in events if e["event"] == "request" and e["route"] == "/v1/completions"]
    assert (logged["request_id"], logged["trace_id"]) == ("find-me.7", TRACE)
    said = [e["text"] for e in events if e["event"] == "worker" and e.get("request_id") == "find-me.7"]
    assert [text.split(":")[0] for text in said if text.startswith(("accepted", "has", "length"))] == [
        "accepted",
        "has a slot",
        "length",
    ]
    request = spans["POST /v1/completions"]
    assert attributes(request)["rllm.request_id"] == "find-me.7"
    assert request.trace_id.hex() == TRACE
    assert collector.services == {"rllm"}
    # the trace's times are the log's
    for name in ("queue", "prefill", "decode"):
        assert lasted(spans[name]) == pytest.approx(logged[f"{name}_s"], abs=1e-4)
    assert lasted(request) == pytest.approx(logged["duration_s"], abs=1e-4)
    assert lasted(spans["prepare"]) == pytest.approx(logged["prepare_s"], abs=1e-4)
    for name in ("prepare", "queue", "prefill", "decode", "stream"):
        assert request.start_time_unix_nano <= spans[name].start_time_unix_nano
        assert spans[name].end_time_unix_nano <= request.end_time_unix_nano + 1_000_000


def test_an_id_is_made_where_none_or_a_wild_one_was_given(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, *SMALL) as server:
        made, _ = ask(server, {})
        replaced, _ = ask(server, {"x-request-id": "no spaces, please"})
        for headers in (made, replaced):
            assert headers["x-request-id"].startswith("req-")
            assert "traceparent" not in headers  # nothing is traced
            server.wait_for(headers["x-request-id"])


@pytest.mark.slow  # the exporter tries again before it gives up
def test_a_collector_that_is_not_there_disturbs_nobody(tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with running("--gguf", tiny_model, *SMALL, OTEL_EXPORTER_OTLP_ENDPOINT=address, **QUICK) as server:
        headers, body = ask(server, {})
        assert "traceparent" in headers
        assert json.loads(body)["usage"]["completion_tokens"] == 30
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0


def test_the_log_of_a_cancelled_request_is_complete(tiny_model: Path) -> None:
    with running("--gguf", tiny_model, *SMALL) as server:
        server.start_stream(max_tokens=8000)
        server.close_connections()
        server.wait_for('"event":"request"')
        (event,) = [e for e in server.events() if e["event"] == "request"]
    assert (event["status"], event["finish_reason"], event["instance"]) == (499, "cancelled", "tiny-0")
    assert event["output_tokens"] > 0
    assert event["prompt_tokens"] > 0
    assert event["decode_s"] > 0
