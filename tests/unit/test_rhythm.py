"""Whose turn it is where prefill and decode do not mix."""

from __future__ import annotations

from rllm.engine.rhythm import GATHER_S, Rhythm


def after_a_prefill(*, flat_decode: bool) -> Rhythm:
    rhythm = Rhythm(flat_decode=flat_decode)
    assert rhythm.wants_prefill(0, 0, 8, 0.0)
    rhythm.took(prefill=True, seconds=0.3)
    return rhythm


def test_decoders_get_their_share_of_the_time_after_a_prefill() -> None:
    rhythm = after_a_prefill(flat_decode=False)
    assert not rhythm.wants_prefill(4, 0, 4, 0.3)
    rhythm.took(prefill=False, seconds=0.09)
    assert not rhythm.wants_prefill(4, 0, 4, 0.39)
    rhythm.took(prefill=False, seconds=0.02)
    assert rhythm.wants_prefill(4, 0, 4, 0.41)


def test_on_a_gpu_a_crowd_does_not_wait_for_the_decoders() -> None:
    rhythm = after_a_prefill(flat_decode=True)
    assert rhythm.wants_prefill(8, 2, 2, 0.3)
    assert not rhythm.wants_prefill(9, 2, 2, 0.3)


def test_few_newcomers_are_gathered_for_a_moment() -> None:
    rhythm = Rhythm(flat_decode=True)
    assert not rhythm.wants_prefill(40, 0, 1, 0.0)
    assert not rhythm.wants_prefill(40, 0, 1, GATHER_S / 2)
    assert rhythm.wants_prefill(40, 0, 1, GATHER_S)
    assert Rhythm(flat_decode=True).wants_prefill(40, 0, 3, 0.0)
