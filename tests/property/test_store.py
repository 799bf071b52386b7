"""Prefixes that no longer fit the cache: stored, found again, kept apart, and never worth an answer."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from rllm.engine.build import build_scheduler
from rllm.engine.moving import MovePolicy
from rllm.engine.port import (
    Effort,
    Forget,
    Load,
    Op,
    Restore,
    Save,
    Status,
    StepResult,
    StoredPrefix,
    StoreReport,
    Unload,
)
from rllm.engine.store import PrefixStore
from rllm.engine.times import StepTimes
from rllm.engine.tuning import DEFAULT
from rllm.engine.types import EngineRequest, ModelInfo
from tests.property.simulator import CELL_BYTES, Faults, FreeMoves, Simulator, make_info
from tests.property.test_scheduler import Harness

FIRST, SECOND, THIRD = (1, 1, 1, 1, 1, 1), (2, 2, 2, 2, 2, 2), (3, 3, 3, 3, 3, 3)
ONE_SLOT = make_info(slots=1, num_sequences=1, ctx=12, cells=12, store_bytes=60_000)
WITH_DISK = make_info(
    slots=1, num_sequences=1, ctx=12, cells=12, store_bytes=12_000, store_disk_bytes=100_000
)

ROOM_FOR_TWO = make_info(slots=2, ctx=12, unified=False, store_bytes=21_000, store_disk_bytes=30_000)

ROOM_FOR_ONE = make_info(
    slots=3, num_sequences=3, ctx=12, cells=36, store_bytes=13_000, store_disk_bytes=100_000
)


def generous(info: ModelInfo) -> Harness:
    """A harness in which whatever can be stored or restored is."""
    return Harness(info, moves=FreeMoves(StepTimes()))


def cached(harness: Harness, prompt: tuple[int, ...], salt: str = "") -> int:
    """Ask for one token; how many of the prompt's were reused."""
    request_id = harness.submit(prompt, 1, cache_salt=salt)
    harness.run()
    harness.check_answers()
    usage = harness.events[request_id][-1].usage
    assert usage is not None
    return usage.cached_tokens


def test_an_evicted_prefix_comes_back() -> None:
    harness = generous(ONE_SLOT)
    assert [cached(harness, prompt) for prompt in (FIRST, SECOND, FIRST, SECOND)] == [0, 0, 5, 5]


def test_without_a_store_it_does_not() -> None:
    harness = generous(make_info(slots=1, num_sequences=1, ctx=12, cells=12))
    assert [cached(harness, prompt) for prompt in (FIRST, SECOND, FIRST)] == [0, 0, 0]


def test_a_restore_has_room_for_all_that_was_stored() -> None:
    """More comes back than is asked for, before what is too much is cut off."""
    harness = generous(make_info(slots=1, num_sequences=2, ctx=12, cells=12, store_bytes=60_000))
    assert [cached(harness, prompt) for prompt in (FIRST + FIRST[:2], SECOND)] == [0, 0]
    assert cached(harness, (*FIRST[:5], 4)) == 5


def test_stored_prefixes_keep_tenants_apart() -> None:
    harness = generous(ONE_SLOT)
    asked = [(FIRST, "a"), (SECOND, "a"), (FIRST, "b"), (SECOND, "b"), (FIRST, "a"), (FIRST, "b")]
    assert [cached(harness, prompt, salt) for prompt, salt in asked] == [0, 0, 0, 0, 5, 5]


def test_what_memory_does_not_hold_comes_from_disk() -> None:
    harness = generous(WITH_DISK)
    assert [cached(harness, prompt) for prompt in (FIRST, SECOND, THIRD)] == [0, 0, 0]
    assert sum(stored.in_memory for stored in harness.backend.stored.values()) == 1
    assert [cached(harness, prompt) for prompt in (FIRST, SECOND, THIRD)] == [5, 5, 5]


@pytest.mark.parametrize("fault", ["save", "restore", "load", "write"])
def test_a_store_that_fails_moves_time_and_nothing_else(fault: str) -> None:
    """The answer is right, and ``cached_tokens`` counts only what really was reused."""
    harness = generous(WITH_DISK)
    broken = Faults(store=frozenset({fault}))

    def run() -> None:
        while harness.scheduler.has_work:
            harness.backend.faults = Faults(store=broken.store)
            harness.step()

    for prompt in (FIRST, SECOND, THIRD, FIRST, SECOND, THIRD):
        request_id = harness.submit(prompt, 1)
        run()
        usage = harness.events[request_id][-1].usage
        assert usage is not None
        assert usage.cached_tokens == 0
    harness.check_answers()


@given(
    asked=st.lists(
        st.tuples(
            st.sampled_from([FIRST, SECOND, THIRD, (*FIRST, 2), (*FIRST, 3), SECOND[:3]]),
            st.sampled_from(["", "tenant"]),
        ),
        min_size=4,
        max_size=16,
    ),
    together=st.integers(1, 3),
    faults=st.lists(st.frozensets(st.sampled_from(["save", "restore", "load", "write"]), max_size=1)),
    info=st.sampled_from([WITH_DISK, ROOM_FOR_TWO, ROOM_FOR_ONE]),
)
@settings(deadline=None)
def test_whatever_fails_the_answers_are_right(
    asked: list[tuple[tuple[int, ...], str]],
    together: int,
    faults: list[frozenset[str]],
    info: ModelInfo,
) -> None:
    """More prefixes than fit anywhere, a few requests at a time, faults as they come."""
    harness = generous(info)
    while asked or harness.scheduler.has_work:
        while asked and harness.scheduler.num_running + harness.scheduler.num_waiting < together:
            prompt, salt = asked.pop()
            harness.submit(prompt, 2, cache_salt=salt)
        harness.backend.faults = Faults(store=faults.pop() if faults else frozenset())
        harness.step()
        assert harness.num_steps < 1000, "a request waits for something that never comes"
    harness.check_answers()


def test_what_an_earlier_process_left_on_disk_is_used() -> None:
    left = StoredPrefix(key=7, tokens=FIRST, salt="", num_bytes=len(FIRST) * CELL_BYTES)
    vocabulary = Simulator(WITH_DISK).vocabulary
    scheduler = build_scheduler(WITH_DISK, vocabulary, moves=FreeMoves(StepTimes()), stored=[left])
    scheduler.submit(EngineRequest(id="r", prompt=(*FIRST, 2), max_tokens=1), 0.0)
    plan = scheduler.plan(1.0)
    assert plan.ops == (Load(7),)
    assert not plan.chunks, "it waits for the disk"
    scheduler.commit(plan, StepResult(Status.OK, store=StoreReport(loaded={7})), 1.0)
    plan = scheduler.plan(2.0)
    assert Restore(7, 0, len(FIRST)) in plan.ops
    assert [len(chunk.tokens) for chunk in plan.chunks] == [1]


def test_what_memory_has_no_room_for_is_computed_not_restored() -> None:
    """Two prefixes on disk, asked for at the same time: while one is loaded the other does without."""
    info = make_info(slots=2, ctx=12, unified=False, store_bytes=10_000, store_disk_bytes=100_000)
    left = [
        StoredPrefix(key, tokens=prompt, salt="", num_bytes=len(prompt) * CELL_BYTES)
        for key, prompt in enumerate((FIRST, SECOND))
    ]
    scheduler = build_scheduler(info, Simulator(info).vocabulary, moves=FreeMoves(StepTimes()), stored=left)
    for request_id, prompt in (("first", FIRST), ("second", SECOND)):
        scheduler.submit(EngineRequest(id=request_id, prompt=(*prompt, 4), max_tokens=1), 0.0)
    plan = scheduler.plan(1.0)
    assert [op for op in plan.ops if isinstance(op, Load | Restore)] == [Load(0)]
    assert [list(chunk.tokens) for chunk in plan.chunks] == [[*SECOND, 4]]
    scheduler.check()


def test_while_others_compute_storing_waits_for_its_allowance() -> None:
    """A save that takes longer than what was saved up is left out; nobody stands still for it."""
    info = make_info(slots=1, num_sequences=1, ctx=400, cells=400, batch=400, store_bytes=10**9)
    store = StoreReport(save=Effort(1000, 0.001), restore=Effort(1000, 0.0001))
    times = learned(StepResult(Status.OK, store=store), token_s=1.0)
    scheduler = build_scheduler(info, Simulator(info).vocabulary, times=times)
    now, saves = 0.0, []
    for number, execute_s in ((1, 0.0), (2, 100.0), (1, 100.0)):
        prompt = tuple(number for _ in range(100))
        scheduler.submit(EngineRequest(id="r", prompt=prompt, max_tokens=1), now)
        while scheduler.num_running + scheduler.num_waiting:
            plan = scheduler.plan(now)
            saves.append(sum(isinstance(op, Save) for op in plan.ops))
            tokens = {chunk.seq: [1] for chunk in plan.chunks}
            report = StoreReport(saved={op.key: 1000 for op in plan.ops if isinstance(op, Save)})
            scheduler.commit(plan, StepResult(Status.OK, tokens, execute_s=execute_s, store=report), now)
            now += 1.0
    assert saves == [0, 0, 0], "a tenth of a second is more than the longest pause"


# What pays


def learned(result: StepResult, *, token_s: float) -> StepTimes:
    times = StepTimes()
    times.token_s = token_s
    times.learn_moves(result)
    return times


def measured(*, token_s: float, copy_cell_s: float = 0.0, byte_s: float = 0.0) -> StepTimes:
    report = StoreReport(save=Effort(1000, 1000 * byte_s), restore=Effort(1000, 1000 * byte_s))
    result = StepResult(Status.OK, copied=Effort(1000, 1000 * copy_cell_s), store=report)
    return learned(result, token_s=token_s)


def test_before_anything_was_measured_constants_decide() -> None:
    moves = MovePolicy(StepTimes())
    assert moves.copy_pays(DEFAULT.min_copy, 4096)
    assert not moves.copy_pays(DEFAULT.min_copy - 1, 4096)
    assert moves.continuing_pays(kept=100, loss=100 // DEFAULT.max_loss, moved_cells=4096)
    assert not moves.continuing_pays(kept=100, loss=100 // DEFAULT.max_loss + 1, moved_cells=4096)
    assert moves.restore_pays(DEFAULT.min_restore, 1, from_disk=False, spared_cells=0)
    assert not moves.restore_pays(DEFAULT.min_restore - 1, 1, from_disk=False, spared_cells=0)


def test_a_copy_pays_when_computing_takes_longer() -> None:
    moves = MovePolicy(measured(token_s=1e-3, copy_cell_s=1e-5))
    assert moves.copy_pays(reused=11, moved_cells=1000)
    assert not moves.copy_pays(reused=9, moved_cells=1000)


def test_cutting_off_pays_when_the_loss_is_cheaper_than_a_copy() -> None:
    moves = MovePolicy(measured(token_s=1e-3, copy_cell_s=1e-5))
    assert moves.continuing_pays(kept=1, loss=40, moved_cells=1000)
    assert not moves.continuing_pays(kept=1000, loss=41, moved_cells=1000)


def test_a_restore_pays_when_it_is_faster_than_computing_what_is_missing() -> None:
    moves = MovePolicy(measured(token_s=1e-3, byte_s=1e-6, copy_cell_s=1e-5))
    assert moves.restore_pays(11, 10_000, from_disk=False, spared_cells=0)
    assert not moves.restore_pays(9, 10_000, from_disk=False, spared_cells=0)
    assert moves.restore_pays(9, 10_000, from_disk=False, spared_cells=1000), "a copy is spared as well"


def test_the_disk_is_part_of_the_price() -> None:
    times = measured(token_s=1e-3, byte_s=1e-6)
    times.learn_moves(StepResult(Status.OK, store=StoreReport(load=Effort(1000, 0.002))))
    moves = MovePolicy(times)
    assert moves.restore_pays(20, 10_000, from_disk=False, spared_cells=0)
    assert not moves.restore_pays(20, 10_000, from_disk=True, spared_cells=0)


def test_what_was_refused_long_enough_is_tried_again() -> None:
    times = measured(token_s=1e-3, copy_cell_s=2e-5)
    moves = MovePolicy(times)
    tries = 0
    while not moves.copy_pays(reused=10, moved_cells=1000):
        assert not moves.copy_pays(reused=10, moved_cells=1000), "asking twice in a step changes nothing"
        times.learn_moves(StepResult(Status.OK))
        tries += 1
        assert tries < 1000
    assert tries > 500


def test_prefixes_that_nobody_asks_for_again_are_stored_less_and_less() -> None:
    info = make_info(slots=1, num_sequences=1, ctx=200, cells=200, batch=200, store_bytes=10**9)
    store = StoreReport(save=Effort(100_000, 0.01), restore=Effort(100_000, 0.001))
    times = learned(StepResult(Status.OK, store=store), token_s=1e-3)
    kv = build_scheduler(info, Simulator(info).vocabulary, times=times).inspect().kv
    saved = []
    for number in range(200):
        kv.offload.save(0, tuple(100 * number + i for i in range(100)), "", loss=100, quiet=True)
        ops = kv.take_ops()
        saved.append(any(isinstance(op, Save) for op in ops))
    assert saved[0]
    assert sum(saved[:100]) < 30
    assert any(saved[100:]), "but now and then, in case things have changed"


# The account


def test_the_longer_prefix_replaces_the_shorter_it_contains() -> None:
    store = PrefixStore(100_000, 0, CELL_BYTES, [])
    assert store.save(0, FIRST, "")
    store.heard(StoreReport(saved={0: 6000}))
    assert store.save(0, (*FIRST, 2, 2), "")
    store.heard(StoreReport(saved={1: 8000}))
    store.check()
    assert store.memory_used == 8000
    found = store.find(FIRST, "")
    assert found is not None
    assert (found.key, found.length, found.entry_length) == (1, 6, 8)


def test_what_is_being_written_goes_last_from_memory() -> None:
    ops: list[Op] = []
    store = PrefixStore(21_000, 50_000, CELL_BYTES, ops)
    for key, prompt in enumerate((FIRST, SECOND)):
        assert store.save(0, prompt, "")
        store.heard(StoreReport(saved={key: 6000}, written={1} if key else set()))
    ops.clear()
    assert store.save(0, THIRD, "")
    assert [type(op) for op in ops] == [Unload, Save], "the older one is not on disk yet"
    store.check()


def test_what_is_still_being_written_is_forgotten_not_unloaded() -> None:
    """A file that is not complete cannot be read: there would be no bytes to load."""
    ops: list[Op] = []
    store = PrefixStore(12_000, 50_000, CELL_BYTES, ops)
    assert store.save(0, FIRST, "")
    store.heard(StoreReport(saved={0: 6000}))
    ops.clear()
    assert store.save(0, SECOND, "")
    assert [type(op) for op in ops] == [Forget, Save]
    store.check()
    assert store.find(FIRST, "") is None


def test_what_is_larger_than_the_store_is_not_stored() -> None:
    ops: list[Op] = []
    store = PrefixStore(10_000, 0, CELL_BYTES, ops)
    assert not store.save(0, FIRST, "")
    assert not ops
    store.check()
