"""A worker's lines carry the ids of the requests that they are about."""

from __future__ import annotations

from rllm.engine.types import EngineRequest, Event, FinishReason, Timings, Usage
from rllm.workers.frames import LogLine, Message
from rllm.workers.worker_log import WorkerLog

REQUEST = EngineRequest(id="a.b.0", prompt=(1, 2, 3), max_tokens=4)
DONE = Event(
    request_id="a.b.0", finish=FinishReason.STOP, usage=Usage(3, 2, 1), timings=Timings(0.1, 0.2, 0.3)
)


def lines(sent: list[Message]) -> list[tuple[str, tuple[str, ...]]]:
    assert all(isinstance(message, LogLine) for message in sent)
    return [(line.level, line.sequences) for line in sent if isinstance(line, LogLine)]


def test_in_detail_a_requests_way_can_be_followed() -> None:
    sent: list[Message] = []
    log = WorkerLog(sent.append, "debug")
    log.accepted(REQUEST)
    log.stepped(["a.b.0"], [])
    log.stepped([], [DONE])
    assert lines(sent) == [("debug", ("a.b.0",))] * 3
    assert isinstance(sent[-1], LogLine)
    assert "stop: 2 tokens, 1 of 3 prompt tokens were resident" in sent[-1].text


def test_without_details_only_a_failure_is_told() -> None:
    sent: list[Message] = []
    log = WorkerLog(sent.append, "warning")
    log.accepted(REQUEST)
    log.stepped(["a.b.0"], [DONE])
    assert sent == []
    log.stepped([], [Event(request_id="c.d.0", finish=FinishReason.ERROR, error="no room")])
    assert sent == [LogLine("warning", "failed: no room", ("c.d.0",))]


def test_llama_cpps_lines_name_who_holds_a_slot() -> None:
    sent: list[Message] = []
    log = WorkerLog(sent.append, "warning")
    log.stepped(["a.b.0", "c.d.0"], [])
    log.native("info", "not worth sending")
    log.native("warning", "decode: failed to find a memory slot")
    log.stepped([], [DONE])
    log.native("error", "and again")
    assert lines(sent) == [("warning", ("a.b.0", "c.d.0")), ("error", ("c.d.0",))]
