"""Token buckets: never more than allowed, never less given back than was taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllm.errors import RateLimited
from rllm.serving.limits import Account, Bucket, KeyLimits, Limiter, duration

steps = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 40)), max_size=40)


@given(steps)
def test_no_minute_sees_more_than_twice_the_limit(steps: list[tuple[float, int]]) -> None:
    """A full bucket and a minute of refill: that is the most a window can hold."""
    account, now, spent = Account(KeyLimits(tokens_per_min=60), 0.0), 0.0, []
    for pause, tokens in steps:
        now += pause
        try:
            account.admit(tokens, now)
        except RateLimited:
            continue
        spent.append((now, tokens))
        account.settle(tokens, tokens, now)
    for start, _ in spent:
        assert sum(t for at, t in spent if start <= at < start + 60) <= 120 + 1e-6


@given(steps)
def test_after_the_wait_that_was_named_the_request_is_accepted(steps: list[tuple[float, int]]) -> None:
    account, now = Account(KeyLimits(requests_per_min=6, tokens_per_min=60), 0.0), 0.0
    for pause, tokens in steps:
        now += pause
        try:
            account.admit(tokens, now)
        except RateLimited as refusal:
            now += (refusal.retry_after_s or 0.0) + 1e-6
            account.admit(tokens, now)
        account.settle(tokens, tokens, now)


@given(st.lists(st.integers(1, 20), max_size=20))
def test_what_was_not_used_comes_back_in_full(charges: list[int]) -> None:
    account = Account(KeyLimits(tokens_per_min=1000, requests_per_min=100), 0.0)
    for tokens in charges:
        account.admit(tokens, 0.0)
    for tokens in charges:
        account.settle(tokens, 0, 0.0)
    assert account.running == 0
    assert ("x-ratelimit-remaining-tokens", "1000") in account.headers(0.0)


def test_a_refused_request_is_not_charged() -> None:
    account = Account(KeyLimits(requests_per_min=2, tokens_per_min=10), 0.0)
    account.admit(10, 0.0)
    with pytest.raises(RateLimited):
        account.admit(10, 0.0)
    assert ("x-ratelimit-remaining-requests", "1") in account.headers(0.0)


def test_concurrency_counts_what_runs() -> None:
    account = Account(KeyLimits(concurrency=1), 0.0)
    account.admit(5, 0.0)
    with pytest.raises(RateLimited):
        account.admit(5, 0.0)
    account.settle(5, 5, 0.0)
    account.admit(5, 0.0)


def test_what_can_never_fit_is_not_to_be_tried_again() -> None:
    with pytest.raises(RateLimited) as refusal:
        Account(KeyLimits(tokens_per_min=10), 0.0).admit(11, 0.0)
    assert ("x-should-retry", "false") in refusal.value.headers
    assert refusal.value.retry_after_s is None


def test_a_reload_keeps_what_was_used_and_forgets_who_is_gone() -> None:
    limiter = Limiter({"a": KeyLimits(tokens_per_min=100), "b": KeyLimits(tokens_per_min=1)}, lambda: 0.0)
    limiter.admit("a", 60, 1)
    limiter.replace({"a": KeyLimits(tokens_per_min=200)})
    _, headers = limiter.admit("a", 10, 1)
    assert ("x-ratelimit-remaining-tokens", "130") in headers
    assert limiter.admit("b", 50, 1) == (None, ())


def test_one_charge_is_settled_when_its_last_sequence_is_over() -> None:
    limiter = Limiter({"a": KeyLimits(tokens_per_min=100, concurrency=1)}, lambda: 0.0)
    permit, _ = limiter.admit("a", 50, 2)
    assert permit is not None
    permit.sequence_over(10)
    with pytest.raises(RateLimited, match="running"):
        limiter.admit("a", 10, 1)
    permit.sequence_over(5)
    _, headers = limiter.admit("a", 15, 1)
    assert ("x-ratelimit-remaining-tokens", "70") in headers


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0201, "21ms"), (1, "1s"), (59.2, "1m0s"), (360, "6m0s"), (3723, "1h2m3s")],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_clock_that_stands_still_refills_nothing() -> None:
    bucket = Bucket(60, 10.0)
    bucket.take(60, 10.0)
    assert bucket.level(10.0) == bucket.level(9.0) == 0
    assert bucket.level(11.0) == pytest.approx(1)
