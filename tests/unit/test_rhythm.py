"""Whose turn it is where prefill and decode do not mix."""

from __future__ import annotations

from rllm.engine.rhythm import GATHER_S, SHARE, Rhythm


def after_a_prefill(seconds: float = 0.3, max_pause_s: float = 0.5) -> Rhythm:
    rhythm = Rhythm(max_pause_s)
    assert rhythm.wants_prefill(0, 0, 8, 0.0)
    rhythm.took(prefill=True, seconds=seconds)
    return rhythm


def test_decoders_get_their_share_of_the_time_after_a_prefill() -> None:
    rhythm = after_a_prefill(max_pause_s=0)
    assert not rhythm.wants_prefill(4, 0, 4, 0.3)
    rhythm.took(prefill=False, seconds=0.06)
    assert not rhythm.wants_prefill(4, 0, 4, 0.36)
    rhythm.took(prefill=False, seconds=0.02)
    assert rhythm.wants_prefill(4, 0, 4, 0.38)


def test_over_many_prefills_decoders_get_their_share_and_no_more() -> None:
    """Their steps of 40 ms are longer than the 33 ms that they are owed after each prefill."""
    rhythm, decoding_s, now = Rhythm(0), 0.0, 0.0
    for _ in range(30):
        while not rhythm.wants_prefill(6, 1, 0, now):
            rhythm.took(prefill=False, seconds=0.04)
            decoding_s, now = decoding_s + 0.04, now + 0.04
        rhythm.took(prefill=True, seconds=0.1)
        now += 0.1
    assert abs(decoding_s - 30 * 0.1 * (1 - SHARE) / SHARE) <= 0.04


def test_decoding_beside_nobody_earns_newcomers_nothing() -> None:
    rhythm = after_a_prefill(0.03, max_pause_s=0)
    for _ in range(5):
        assert not rhythm.wants_prefill(4, 0, 0, 1.0)
        rhythm.took(prefill=False, seconds=0.04)
    assert rhythm.wants_prefill(4, 0, 4, 1.2)
    rhythm.took(prefill=True, seconds=0.3)
    rhythm.took(prefill=False, seconds=0.06)
    assert not rhythm.wants_prefill(4, 0, 4, 1.6)


def test_a_crowd_does_not_wait_for_the_decoders() -> None:
    rhythm = after_a_prefill()
    rhythm_of_turns = after_a_prefill(max_pause_s=0)
    assert rhythm.wants_prefill(8, 2, 2, 0.3)
    assert not rhythm.wants_prefill(9, 2, 2, 0.3)
    assert not rhythm_of_turns.wants_prefill(8, 2, 2, 0.3)


def test_a_crowd_keeps_the_decoders_waiting_only_so_long() -> None:
    rhythm = after_a_prefill()
    rhythm.took(prefill=True, seconds=0.3)
    assert not rhythm.wants_prefill(4, 0, 4, 0.6)
    rhythm.took(prefill=False, seconds=0.02)
    assert rhythm.wants_prefill(4, 0, 4, 0.62)


def test_few_newcomers_are_gathered_for_a_moment() -> None:
    rhythm = Rhythm(0)
    assert not rhythm.wants_prefill(40, 0, 1, 0.0)
    assert not rhythm.wants_prefill(40, 0, 1, GATHER_S / 2)
    assert rhythm.wants_prefill(40, 0, 1, GATHER_S)
    assert Rhythm(0).wants_prefill(40, 0, 3, 0.0)
