"""Breaker, back-off, time limits and admission: decisions over numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rllm.errors import Overloaded, PromptTooLong, TimedOut
from rllm.serving.admission import Load, check_fits, check_load, predicted_ttft_s
from rllm.serving.backoff import Backoff
from rllm.serving.breaker import Breaker, BreakerState
from rllm.serving.rates import DrainRate, ForecastMargin, OutputLength
from rllm.serving.timeouts import Limit, Times, error_of, next_limit
from rllm.settings.limits import BreakerSettings, Limits, Timeouts

BREAKER = BreakerSettings(faults=3, window_s=10, open_s=5, probes=1, successes=2)


def _open(at: float = 0.0) -> Breaker:
    breaker = Breaker(BREAKER)
    for _ in range(3):
        breaker.failed(at)
    return breaker


def test_a_breaker_opens_after_so_many_faults_within_the_window() -> None:
    breaker = Breaker(BREAKER)
    for at in (0.0, 6.0, 12.0, 18.0):  # never three within ten seconds
        breaker.failed(at)
    assert breaker.state(18.0) is BreakerState.CLOSED
    breaker.failed(19.0)
    assert breaker.state(19.0) is BreakerState.OPEN
    assert not breaker.allows(19.0, 0)
    assert breaker.reopens_in_s(20.0) == 4


def test_a_half_open_breaker_lets_probes_through_and_closes_on_success() -> None:
    breaker = _open()
    assert breaker.state(5.0) is BreakerState.HALF_OPEN
    assert breaker.allows(5.0, 0)
    assert not breaker.allows(5.0, 1)
    breaker.succeeded(5.1)
    assert breaker.state(5.1) is BreakerState.HALF_OPEN
    breaker.succeeded(5.2)
    assert breaker.state(5.2) is BreakerState.CLOSED


def test_a_failed_probe_opens_it_again() -> None:
    breaker = _open()
    breaker.failed(6.0)
    assert breaker.state(10.9) is BreakerState.OPEN
    assert breaker.state(11.0) is BreakerState.HALF_OPEN


def test_back_off_grows_to_its_most_and_is_scattered_by_a_quarter() -> None:
    backoff = Backoff(first_s=1, factor=2, most_s=5)
    assert [backoff.pause_s(0, 0.5) for _ in range(5)] == [1, 2, 4, 5, 5]
    assert (Backoff(first_s=1).pause_s(0, 0), Backoff(first_s=1).pause_s(0, 1)) == (0.75, 1.25)


def test_back_off_forgets_only_after_a_good_time() -> None:
    backoff = Backoff(first_s=1, factor=2, good_after_s=60)
    backoff.pause_s(0, 0.5)
    backoff.succeeded(10)
    assert backoff.pause_s(20, 0.5) == 2
    backoff.succeeded(30)
    assert backoff.pause_s(90, 0.5) == 1


LIMITS = Timeouts(queue_s=5, first_token_s=10, total_s=100, idle_s=3, retry_s=4)


def test_each_time_limit_has_its_phase() -> None:
    times = Times(accepted_at=0.0)
    assert next_limit(times, LIMITS) == (5.0, Limit.QUEUE)
    times.started_at = 2.0
    assert next_limit(times, LIMITS) == (10.0, Limit.FIRST_TOKEN)
    times.last_token_at = 4.0
    assert next_limit(times, LIMITS) == (7.0, Limit.IDLE)
    times.last_token_at = 98.0
    assert next_limit(times, LIMITS) == (100.0, Limit.TOTAL)
    times.deadline = 50.0
    assert next_limit(times, LIMITS) == (50.0, Limit.DEADLINE)


def test_who_lost_his_worker_waits_so_long_for_another() -> None:
    assert next_limit(Times(0.0, parked_at=3.0), LIMITS) == (7.0, Limit.RETRY)


def test_limits_that_are_off_never_come() -> None:
    assert next_limit(Times(0.0), Timeouts(0, 0, 0, 0, 0)) is None


def test_only_a_request_that_was_never_computed_is_told_to_come_back() -> None:
    queue = error_of(Limit.QUEUE, 5.0, 1.5)
    assert isinstance(queue, Overloaded)
    assert (queue.code, queue.retry_after_s) == ("queue_timeout", 1.5)
    for limit in (Limit.FIRST_TOKEN, Limit.TOTAL, Limit.DEADLINE, Limit.IDLE):
        error = error_of(limit, 5.0, 1.5)
        assert isinstance(error, TimedOut)
        assert (error.code, error.retry_after_s) == (limit.value, None)


def _load(requests: int, pending: int = 0) -> Load:
    return Load(
        slots=4,
        ctx_per_slot=100,
        requests=requests,
        pending_prompt_tokens=pending,
        gap_s=2.0,
        prefill_token_s=0.01,
    )


def test_the_expected_first_token_counts_slots_and_prompts_ahead() -> None:
    assert predicted_ttft_s(_load(3), 50) == pytest.approx(0.5)
    assert predicted_ttft_s(_load(4), 50) == pytest.approx(2.5)
    assert predicted_ttft_s(_load(0, pending=400), 50) == pytest.approx(4.5)


def test_a_newcomer_waits_for_the_slot_that_is_his_and_for_the_prompts_before_him() -> None:
    load = replace(_load(4), frees_s=(0.5, 1.0, 3.0, 7.0))
    assert predicted_ttft_s(load, 50) == pytest.approx(0.5 + 0.5)
    third = replace(load, requests=6, pending_prompt_tokens=40, queued_prompt_tokens=40)
    assert predicted_ttft_s(third, 50) == pytest.approx(3.0 + 0.4 + 0.5)
    second_round = replace(load, requests=8)
    assert predicted_ttft_s(second_round, 0) == pytest.approx(0.5 + 4 * 2.0)


def test_forecasts_are_as_late_as_four_of_five_lately_were() -> None:
    margin = ForecastMargin()
    for late in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        margin.add(5.0, 1.0, 1.0 + late)
    assert margin.seconds(5.0) == pytest.approx(0.8)
    check_load(_load(3), Limits(), 1, 50, ttft_s=0.6)
    with pytest.raises(Overloaded):
        check_load(replace(_load(3), ttft_margin_s=0.2), Limits(), 1, 50, ttft_s=0.6)
    for _ in range(100):
        margin.add(5.0, 1.0, 0.5)
    assert margin.seconds(5.0) == 0.0


def test_a_margin_that_refuses_everybody_does_not_last() -> None:
    margin = ForecastMargin(window_s=10)
    margin.add(0.0, 1.0, 31.0)
    assert margin.seconds(9.0) == pytest.approx(30.0)
    assert margin.seconds(11.0) == 0.0
    late = replace(_load(0), ttft_margin_s=30.0)
    check_load(late, Limits(), 1, 50, ttft_s=1.0)  # nobody is there to make him wait
    with pytest.raises(Overloaded):
        check_load(replace(late, requests=1), Limits(), 1, 50, ttft_s=1.0)


def test_an_answer_is_expected_to_be_as_long_as_answers_are() -> None:
    length = OutputLength()
    for _ in range(100):
        length.finished(20)
    assert length.expect_more(0, 512) == pytest.approx(20, abs=1)
    assert length.expect_more(15, 512) == pytest.approx(5, abs=1)
    assert length.expect_more(40, 512) == pytest.approx(20, abs=1)
    assert length.expect_more(15, 16) == 1


def test_who_would_wait_too_long_is_refused_now_with_the_difference_as_hint() -> None:
    check_load(_load(4), Limits(), 1, 50, ttft_s=3.0)
    with pytest.raises(Overloaded) as refusal:
        check_load(_load(6), Limits(), 1, 50, ttft_s=3.0)
    assert refusal.value.retry_after_s == pytest.approx(3.5)


def test_the_queue_is_bounded_in_requests_and_in_uncached_tokens() -> None:
    limits = Limits(max_queue_requests=2, max_queue_tokens=100)
    check_load(_load(5), limits, 1, 10, None)
    with pytest.raises(Overloaded, match="2 requests wait"):
        check_load(_load(6), limits, 1, 10, None)
    with pytest.raises(Overloaded, match="95 prompt tokens"):
        check_load(_load(2, pending=95), limits, 1, 10, None)


def test_a_request_that_can_never_run_is_the_clients_fault() -> None:
    check_fits(60, 40, 100)
    with pytest.raises(PromptTooLong):
        check_fits(61, 40, 100)


def test_the_drain_rate_is_measured_only_while_requests_wait() -> None:
    rate = DrainRate()
    assert rate.gap_s(4) is None
    rate.finished(0.0, saturated=False, held_s=8.0)
    assert rate.gap_s(4) == 2.0
    for at in (10.0, 10.5, 11.0, 11.5):
        rate.finished(at, saturated=True, held_s=8.0)
    assert rate.gap_s(4) == pytest.approx(0.5)
