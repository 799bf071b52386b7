"""Races between options: the faster wins, noise does not, and time that is over is over."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllm.backends.llama.fingerprint import fingerprint
from rllm.backends.llama.speed import Order
from rllm.backends.options import LlamaOptions
from rllm.startup.profiles import Profile, ProfileStore, Tuned
from rllm.tuning import session
from rllm.tuning.candidates import RULE, Candidate, full_candidates, quick_candidates
from rllm.tuning.points import WEIGHTS, Point, full_points, quick_points
from rllm.tuning.race import Race
from rllm.tuning.rigs import ProcessRig, RigFailed
from rllm.tuning.session import Busy, alone, is_tuned
from rllm.tuning.tuner import FIRST_ROUNDS, MORE_ROUNDS, Outcome, Tuner

FAST, SLOW, BROKEN = (Candidate((("threads", number),)) for number in (1, 2, 3))
CHAT = WEIGHTS["chat"]


class FakeRig:
    """Takes the time of its candidate, with noise; time is what it says, nobody waits."""

    def __init__(self, clock: list[float], factor: float, noise: random.Random, fails: bool = False) -> None:
        self._clock = clock
        self._factor = factor
        self._noise = noise
        self._fails = fails
        self.closed = False

    def ask(self, order: Order, patience_s: float) -> float:
        if self._fails:
            raise RigFailed("killed by signal 4")
        work = order.count * order.size if order.what == "decode" else order.size
        seconds = 0.001 * work * self._factor * self._noise.uniform(0.97, 1.03)
        self._clock[0] += min(seconds, patience_s)
        if seconds > patience_s:
            raise TimeoutError
        return seconds

    def close(self) -> None:
        self.closed = True


def race(
    factors: dict[Candidate, float], budget_s: float = 1e6, seed: int = 0
) -> tuple[Outcome, list[FakeRig]]:
    clock, noise, rigs = [0.0], random.Random(seed), list[FakeRig]()

    def open_rig(candidate: Candidate) -> FakeRig:
        rigs.append(FakeRig(clock, factors[candidate], noise, candidate == BROKEN))
        return rigs[-1]

    tuner = Tuner(list(factors), CHAT, open_rig, budget_s, clock=lambda: clock[0])
    return tuner.run(), rigs


@given(seed=st.integers(0, 50))
def test_what_is_clearly_faster_is_kept(seed: int) -> None:
    outcome, rigs = race({RULE: 1.0, FAST: 0.8, SLOW: 1.4}, seed=seed)
    assert outcome.winner == FAST
    assert SLOW in outcome.race.out
    assert all(rig.closed for rig in rigs)


@given(seed=st.integers(0, 50))
def test_what_is_not_faster_does_not_replace_the_rule(seed: int) -> None:
    outcome, _ = race({RULE: 1.0, FAST: 1.0}, seed=seed)
    assert outcome.winner == RULE


def test_losers_are_not_timed_again() -> None:
    outcome, _ = race({RULE: 1.0, FAST: 0.98, SLOW: 3.0})
    assert len(outcome.race.times[SLOW]) == FIRST_ROUNDS
    assert len(outcome.race.times[RULE]) == FIRST_ROUNDS + MORE_ROUNDS


def test_a_candidate_that_crashes_is_out_and_the_rule_may_be_one() -> None:
    outcome, _ = race({RULE: 1.0, BROKEN: 0.1})
    assert (outcome.winner, outcome.race.out[BROKEN]) == (RULE, "killed by signal 4")
    outcome, _ = race({BROKEN: 0.1, SLOW: 9.0})
    assert outcome.winner == SLOW


def test_time_that_is_over_leaves_the_rule() -> None:
    outcome, rigs = race({RULE: 1.0, FAST: 0.5}, budget_s=1.45)
    assert (outcome.rounds, outcome.winner) == (0, RULE)
    assert outcome.seconds <= 1.46
    assert all(rig.closed for rig in rigs)


def test_what_cannot_be_done_in_time_is_not_begun() -> None:
    outcome, _ = race({RULE: 1.0, FAST: 0.5}, budget_s=1.0)
    assert "compute the depths" in outcome.note
    assert outcome.seconds < 0.1


def test_what_slows_the_machine_for_a_while_slows_both_sides_of_a_ratio() -> None:
    point = Point(600, 1)
    both = Race([RULE, FAST], {point: 1.0})
    for slowness in (1.0, 5.0, 2.0, 9.0):
        both.add(RULE, {point: 1.0 * slowness})
        both.add(FAST, {point: 0.5 * slowness})
    ratio = both.ratio(FAST, RULE)
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((2.0, 2.0, 2.0))


def test_points_count_by_their_weight_whatever_their_seconds() -> None:
    long_step, short_step = Point(600, 16), Point(64, 1)
    both = Race([RULE, FAST], {long_step: 1.0, short_step: 1.0})
    both.add(RULE, {long_step: 10.0, short_step: 0.01})
    both.add(FAST, {long_step: 20.0, short_step: 0.005})
    assert both.ratio(FAST, RULE).value == pytest.approx(1.0)


def test_what_was_chosen_is_not_varied() -> None:
    everything = full_candidates(LlamaOptions(), physical=2, logical=4, on_gpu=False)
    assert everything[0] == RULE
    assert len(everything) == len(set(everything)) == 2 * 2 * 2 * 3
    chosen = LlamaOptions(flash_attn="on", repack="off", ubatch_size=512, threads=2)
    assert full_candidates(chosen, physical=2, logical=4, on_gpu=False) == [RULE]
    quick = quick_candidates(LlamaOptions(), physical=2, logical=2, on_gpu=False)
    assert [str(each) for each in quick] == ["the rule", "--flash-attn off"]
    quantized = LlamaOptions(cache_type_v="q8_0")
    assert quick_candidates(quantized, physical=2, logical=2, on_gpu=False) == [RULE]


def test_every_use_is_measured_by_what_the_table_shows() -> None:
    for use, weights in WEIGHTS.items():
        assert set(weights) <= set(full_points())
        assert {point.depth for point in quick_points(use)} == {max(weights, key=weights.__getitem__).depth}


def test_one_tuner_at_a_time(tmp_path: Path) -> None:
    with alone(tmp_path / "new"), pytest.raises(Busy), alone(tmp_path / "new"):
        pass
    with alone(tmp_path / "new"):
        pass


def test_a_quick_race_does_not_replace_a_full_one_nor_another_use() -> None:
    full = Profile(model="m", machine={}, tuned=Tuned(options={}, use="chat", how="full", rounds=7))
    quick = Profile(model="m", machine={}, tuned=Tuned(options={}, use="chat", how="quick", rounds=3))
    assert is_tuned(full, "chat", "quick")
    assert is_tuned(full, "chat", "full")
    assert is_tuned(quick, "chat", "quick")
    assert not is_tuned(quick, "chat", "full")
    assert not is_tuned(full, "long", "quick")
    assert not is_tuned(None, "chat", "quick")


def test_a_real_rig_computes_and_says_what_it_cannot(tiny_model: Path, tmp_path: Path) -> None:
    rig = ProcessRig(tiny_model, LlamaOptions(threads=1))
    try:
        for order in (
            Order("open", 3, 64),
            Order("decode", 3, 4),
            Order("prefill", 1, 32),
            Order("decode", 1, 8),
        ):
            assert rig.ask(order, 60.0) > 0
        with pytest.raises(TimeoutError):
            rig.ask(Order("decode", 3, 4), 0.0)
    finally:
        rig.close()
    broken = ProcessRig(tmp_path / "none.gguf", LlamaOptions())
    with pytest.raises(RigFailed, match=r"none\.gguf"):
        broken.ask(Order("open", 1, 8), 60.0)
    broken.close()


def test_a_profile_keeps_what_the_race_said(tiny_model: Path, tmp_path: Path) -> None:
    store = ProfileStore(tmp_path, {"cpu": "one"}, fingerprint)
    tuned = Tuned(options={"threads": 3, "flash_attn": "off"}, use="chat", how="full", rounds=7)
    store.update(tiny_model, tuned=tuned)
    found = store.load(tiny_model)
    assert found is not None
    assert found.tuned == tuned


def test_a_race_without_time_is_not_run_again_at_the_next_start(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(session.BUDGET_S, "quick", 0.0)
    store = ProfileStore(tmp_path, {"cpu": "one"}, fingerprint)
    result = session.tune_and_keep(store, tiny_model, LlamaOptions(), "chat", "quick")
    assert result.outcome.note == "0 s were over"
    assert result.outcome.rounds == 0
    assert is_tuned(store.load(tiny_model), "chat", "quick")


def test_a_race_without_time_takes_nothing_back(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(session.BUDGET_S, "full", 0.0)
    store = ProfileStore(tmp_path, {"cpu": "one"}, fingerprint)
    tuned = Tuned(options={"flash_attn": "off"}, use="chat", how="quick", rounds=3)
    store.update(tiny_model, tuned=tuned)
    session.tune_and_keep(store, tiny_model, LlamaOptions(), "chat", "full")
    found = store.load(tiny_model)
    assert found is not None
    assert found.tuned == tuned
