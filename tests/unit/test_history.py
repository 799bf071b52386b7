"""Five minutes of history: sums per second, gauges that stay, quantiles over several models."""

from __future__ import annotations

import pytest

from rllm.engine.types import StepRecord
from rllm.observe.history import KEPT_S, History
from rllm.serving.observer import InstanceState


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def history(clock: Clock) -> History:
    return History(clock)


def test_a_second_is_told_when_it_is_over(history: History, clock: Clock) -> None:
    history.on_step("q4", "q4-0", StepRecord(decode_tokens=3, execute_s=0.25, running=3, kv_used=70))
    history.on_step("q4", "q4-0", StepRecord(prefill_tokens=50, execute_s=0.5, running=4, kv_used=120))
    assert history.points(0)["q4"] == ()
    clock.now += 1
    (point,) = history.points(0)["q4"]
    assert (point.t, point.decode_tokens, point.prefill_tokens, point.steps) == (1000, 3, 50, 2)
    assert (point.busy_s, point.prefill_s) == (0.75, 0.5)
    assert (point.running, point.kv_used) == (4, 120)


def test_an_answer_continues_where_the_last_one_ended(history: History, clock: Clock) -> None:
    seen: list[int] = []
    since = 0.0
    for _ in range(40):
        history.on_step("q4", "q4-0", StepRecord(decode_tokens=1))
        seen += [point.t for point in history.points(since - 1)["q4"]]
        since = clock.now
        clock.now += 0.3
    assert seen == list(range(1000, seen[-1] + 1))
    assert len(seen) > 5


def test_gauges_of_replicas_add_up_and_those_of_a_lost_worker_are_gone(
    history: History, clock: Clock
) -> None:
    history.on_step("q4", "q4-0", StepRecord(running=2, waiting=1, kv_used=10))
    history.on_step("q4", "q4-1", StepRecord(running=3, kv_used=5))
    clock.now += 1
    history.on_instance("q4", "q4-0", InstanceState.RESTARTING, "killed")
    clock.now += 1
    first, second = history.points(0)["q4"]
    assert (first.running, first.waiting, first.kv_used) == (5, 1, 15)
    assert (second.running, second.waiting, second.kv_used) == (3, 0, 5)


def test_all_models_together_have_their_quantiles_and_gauges(history: History, clock: Clock) -> None:
    for _ in range(9):
        history.on_token_gap("q4", "q4-0", 0.010)
    history.on_token_gap("q8", "q8-0", 1.0)
    history.on_step("q8", "q8-0", StepRecord(running=2))
    clock.now += 1
    history.on_step("q4", "q4-0", StepRecord(running=1))
    clock.now += 1
    first, second = history.points(0)[""]
    assert first.itl_p50_s == pytest.approx(0.010, rel=0.05)
    assert first.itl_p99_s == pytest.approx(1.0, rel=0.05)
    assert second.running == 3  # q8 had no step in this second: its gauge stays
    assert second.itl_p50_s is None


def test_a_model_that_rests_keeps_its_part_of_the_whole(history: History, clock: Clock) -> None:
    """Also for who has seen its last second already."""
    history.on_step("q8", "q8-0", StepRecord(kv_used=70))
    clock.now += 10
    history.on_step("q4", "q4-0", StepRecord(kv_used=5))
    clock.now += 1
    assert history.points(1005)[""][-1].kv_used == 75


def test_the_last_minute_is_one_point(history: History, clock: Clock) -> None:
    history.on_first_token("q4", "q4-0", 5.0)
    clock.now += 61
    for seconds in (0.1, 0.2, 0.4):
        history.on_first_token("q4", "q4-0", seconds)
        clock.now += 1
    minute = history.minute()
    assert minute["q4"].ttft_p50_s == pytest.approx(0.2, rel=0.05)
    assert minute[""].ttft_p95_s == pytest.approx(0.4, rel=0.05)


def test_history_is_bounded(history: History, clock: Clock) -> None:
    for _ in range(3 * KEPT_S):
        history.on_step("q4", "q4-0", StepRecord(decode_tokens=1))
        clock.now += 1
    assert len(history.points(0)["q4"]) == KEPT_S


def test_refusals_are_counted_and_forgotten_as_news(history: History, clock: Clock) -> None:
    history.on_rejected("q4", "overloaded", "queue_requests")
    clock.now += 5
    history.on_rejected("q4", "overloaded", "queue_requests")
    assert history.refused_within(10) == 2
    clock.now += 8
    assert history.refused_within(10) == 1
    assert history.rejections == {"overloaded: queue_requests": 2}
