"""Whose turn it is where prefill and decode do not mix."""

from __future__ import annotations

from rllm.engine.phases import PhasePolicy
from rllm.engine.tuning import DEFAULT


def after_a_prefill(seconds: float = 0.3, max_pause_s: float = 0.5) -> PhasePolicy:
    policy = PhasePolicy(max_pause_s)
    assert policy.wants_prefill(0, 0, 8, 0.0)
    policy.took(prefill=True, seconds=seconds)
    return policy


def test_decoders_get_their_share_of_the_time_after_a_prefill() -> None:
    policy = after_a_prefill(max_pause_s=0)
    assert not policy.wants_prefill(4, 0, 4, 0.3)
    policy.took(prefill=False, seconds=0.06)
    assert not policy.wants_prefill(4, 0, 4, 0.36)
    policy.took(prefill=False, seconds=0.02)
    assert policy.wants_prefill(4, 0, 4, 0.38)


def test_over_many_prefills_decoders_get_their_share_and_no_more() -> None:
    """Their steps of 40 ms are longer than the 33 ms that they are owed after each prefill."""
    policy, decoding_s, now = PhasePolicy(0), 0.0, 0.0
    for _ in range(30):
        while not policy.wants_prefill(6, 1, 0, now):
            policy.took(prefill=False, seconds=0.04)
            decoding_s, now = decoding_s + 0.04, now + 0.04
        policy.took(prefill=True, seconds=0.1)
        now += 0.1
    assert abs(decoding_s - 30 * 0.1 * (1 - DEFAULT.prefill_share) / DEFAULT.prefill_share) <= 0.04


def test_decoding_beside_nobody_earns_those_who_wait_nothing() -> None:
    policy = after_a_prefill(0.03, max_pause_s=0)
    for _ in range(5):
        assert not policy.wants_prefill(4, 0, 0, 1.0)
        policy.took(prefill=False, seconds=0.04)
    assert policy.wants_prefill(4, 0, 4, 1.2)
    policy.took(prefill=True, seconds=0.3)
    policy.took(prefill=False, seconds=0.06)
    assert not policy.wants_prefill(4, 0, 4, 1.6)


def test_a_crowd_does_not_wait_for_the_decoders() -> None:
    policy = after_a_prefill()
    policy_of_turns = after_a_prefill(max_pause_s=0)
    assert policy.wants_prefill(8, 2, 2, 0.3)
    assert not policy.wants_prefill(9, 2, 2, 0.3)
    assert not policy_of_turns.wants_prefill(8, 2, 2, 0.3)


def test_a_crowd_keeps_the_decoders_waiting_only_so_long() -> None:
    policy = after_a_prefill()
    policy.took(prefill=True, seconds=0.3)
    assert not policy.wants_prefill(4, 0, 4, 0.6)
    policy.took(prefill=False, seconds=0.02)
    assert policy.wants_prefill(4, 0, 4, 0.62)


def test_few_waiting_requests_are_gathered_for_a_moment() -> None:
    policy = PhasePolicy(0)
    assert not policy.wants_prefill(40, 0, 1, 0.0)
    assert not policy.wants_prefill(40, 0, 1, DEFAULT.gather_s / 2)
    assert policy.wants_prefill(40, 0, 1, DEFAULT.gather_s)
    assert PhasePolicy(0).wants_prefill(40, 0, 3, 0.0)
