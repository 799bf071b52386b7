"""A request is told of once, when HTTP and every sequence of it are over, in whatever order."""

from __future__ import annotations

from itertools import permutations

import pytest

from rllm.api.http.records import RequestRecord
from rllm.engine.types import EngineRequest, Event, FinishReason, Timings, Usage
from rllm.observe.joining import Joiner, Story, request_id_of

ONE, TWO = (EngineRequest(id=f"req.1.abcdefgh.{n}", prompt=(1, 2), max_tokens=4) for n in range(2))


def record(response_id: str | None = "cmpl-123abcdefgh", num_choices: int = 2) -> RequestRecord:
    made = RequestRecord(request_id="req.1", method="POST", path="/v1/completions")
    made.response_id, made.num_choices = response_id, num_choices
    return made


def finish(joiner: Joiner, request: EngineRequest, tokens: int = 3) -> None:
    event = Event(
        request_id=request.id,
        finish=FinishReason.LENGTH,
        usage=Usage(2, tokens, 1),
        timings=Timings(0.1, 0.2, 0.3),
    )
    joiner.on_finished("q4", "q4-0", request, event, 1.0)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_order_of_ends_does_not_matter(order: tuple[int, ...]) -> None:
    told: list[Story] = []
    joiner = Joiner(told.append)
    for request in (ONE, TWO):
        joiner.on_accepted("q4", "q4-0", request)
    steps = [
        lambda: joiner.on_request(record()),
        lambda: finish(joiner, ONE),
        lambda: finish(joiner, TWO, tokens=4),
    ]
    for step in order:
        assert told == []
        steps[step]()
    (story,) = told
    assert story.output_tokens == 7
    assert story.finish_reasons == ("length", "length")
    assert story.cached_tokens == 1


def test_a_request_without_sequences_is_told_at_once() -> None:
    told: list[Story] = []
    joiner = Joiner(told.append)
    joiner.on_request(record())
    joiner.on_request(record(response_id=None))
    assert [story.sequences for story in told] == [(), ()]


def test_a_sequence_that_is_tried_again_is_waited_for() -> None:
    told: list[Story] = []
    joiner = Joiner(told.append)
    joiner.on_accepted("q4", "q4-0", ONE)
    joiner.on_lost("q4", "q4-0", ONE, retried=True)
    joiner.on_accepted("q4", "q4-1", ONE)
    joiner.on_request(record(num_choices=1))
    assert told == []
    joiner.on_finished("q4", "q4-1", ONE, Event(request_id=ONE.id, finish=FinishReason.CANCELLED), 1.0)
    assert (told[0].num_lost, told[0].sequences[0].instance) == (1, "q4-1")


def test_a_sequence_that_is_lost_for_good_ends_the_story() -> None:
    told: list[Story] = []
    joiner = Joiner(told.append)
    joiner.on_accepted("q4", "q4-0", ONE)
    joiner.on_request(record(num_choices=1))
    joiner.on_lost("q4", "q4-0", ONE, retried=False)
    assert told[0].finish_reasons == ("unanswered",)


def test_a_worker_that_stands_still_does_not_keep_a_request_from_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Story] = []
    joiner = Joiner(told.append)
    joiner.on_accepted("q4", "q4-0", ONE)
    joiner.on_request(record(num_choices=1))
    probe = record(response_id=None)
    joiner.on_request(probe)
    assert [story.record for story in told] == [probe]
    monkeypatch.setattr("rllm.observe.joining.PATIENCE_S", 0.0)
    joiner.on_request(probe)
    assert [story.finish_reasons for story in told] == [(), ("unanswered",), ()]
    finish(joiner, ONE)  # it wakes up after all
    assert len(told) == 3


def test_sequences_that_no_http_request_belongs_to_do_not_pile_up() -> None:
    joiner = Joiner()
    for number in range(10_500):
        request = EngineRequest(id=f"r.{number}.0", prompt=(1,), max_tokens=1)
        joiner.on_accepted("q4", "q4-0", request)
        finish(joiner, request)
    assert len(joiner._open) == 10_000


def test_a_request_id_may_have_dots() -> None:
    assert request_id_of(ONE.id) == "req.1"
