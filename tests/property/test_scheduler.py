"""The scheduler under random requests, cancels and faults: right answers, exact accounts, nobody starves."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rllm.engine.build import build_scheduler
from rllm.engine.drafts import Drafter
from rllm.engine.moving import MovePolicy
from rllm.engine.snapshot import Phase
from rllm.engine.store import Place
from rllm.engine.times import StepTimes
from rllm.engine.tuning import DEFAULT
from rllm.engine.types import EngineRequest, Event, FinishReason, ModelInfo, SamplingParams
from tests.property.drafters import Clairvoyant, Eager
from tests.property.simulator import Faults, FreeMoves, Simulator, answer, make_info, score

PROMPTS = st.lists(st.integers(1, 2), min_size=1, max_size=9).map(tuple)


class Harness:
    """A scheduler with its simulator and everything the clients have heard."""

    def __init__(
        self,
        info: ModelInfo,
        *,
        prefix_cache: bool = True,
        moves: MovePolicy | None = None,
        drafter: Drafter | None = None,
        forces: int = 0,
    ) -> None:
        self.info = info
        self.backend = Simulator(info, forces=forces)
        self.scheduler = build_scheduler(
            info, self.backend.vocabulary, prefix_cache=prefix_cache, moves=moves, drafter=drafter
        )
        self.now = 0.0
        self.num_steps = 0
        self.requests: dict[str, EngineRequest] = {}
        self.events: dict[str, list[Event]] = {}
        self.faulted: set[str] = set()
        self.finished_order: list[str] = []

    def submit(self, prompt: tuple[int, ...], max_tokens: int = 4, **options: object) -> str:
        request_id = f"r{len(self.requests)}"
        request = EngineRequest(id=request_id, prompt=prompt, max_tokens=max_tokens, **options)  # type: ignore[arg-type]
        self.requests[request_id] = request
        self.events[request_id] = []
        self.scheduler.submit(request, self.now)
        return request_id

    def step(self) -> bool:
        """One step; False when nothing was computed."""
        self.now += 1.0
        self.num_steps += 1
        plan = self.scheduler.plan(self.now)
        result = self.backend.execute(plan)
        for seq in result.failed:
            self.faulted |= {r for r, s in self.scheduler.inspect().requests.items() if s.seq == seq}
        for event in self.scheduler.commit(plan, result, self.now):
            self._hear(event)
        self.scheduler.check()
        if not self.scheduler.inspect().kv.ops:
            assert self.backend.used == self.scheduler.cells_used
            self.check_store()
        return bool(plan.chunks)

    def check_store(self) -> None:
        """Account and backend agree on what is stored where."""
        entries = self.scheduler.inspect().kv.offload.store.entries
        assert entries.keys() == self.backend.stored.keys()
        for key, entry in entries.items():
            stored = self.backend.stored[key]
            assert (entry.length, entry.is_written) == (len(stored.tokens), stored.on_disk)
            assert (entry.place is Place.MEMORY) == stored.in_memory

    def _hear(self, event: Event) -> None:
        heard = self.events[event.request_id]
        assert not heard or heard[-1].finish is None, "an event after the last one"
        heard.append(event)
        if event.finish is not None:
            self.finished_order.append(event.request_id)

    def run(self, limit: int = 2000) -> None:
        """Until nothing is left to do."""
        for _ in range(limit):
            if not self.scheduler.has_work:
                return
            self.step()
        raise AssertionError("still busy: somebody starves or the engine is stuck")

    def tokens(self, request_id: str) -> list[int]:
        return [token for event in self.events[request_id] for token in event.tokens]

    def check_answers(self) -> None:
        for request_id, request in self.requests.items():
            last = self.events[request_id][-1]
            expected = answer(
                request.prompt,
                request.max_tokens,
                self.info.ctx_per_slot,
                request.min_tokens,
                request.ignore_eos,
            )
            said = self.tokens(request_id)
            self._check_scores(request, last.finish)
            if last.finish in (FinishReason.STOP, FinishReason.LENGTH):
                assert said == expected, request
                assert last.usage is not None
                assert last.usage.completion_tokens == len(said)
                assert last.usage.prompt_tokens == len(request.prompt) > last.usage.cached_tokens >= 0
            else:
                assert said == expected[: len(said)], request

    def _check_scores(self, request: EngineRequest, finish: FinishReason | None) -> None:
        """Each token of the prompt but the first has its log probability once, whatever happened."""
        found = [one for event in self.events[request.id] for one in event.prompt_logprobs]
        expected = [score(request.prompt[:i], request.prompt[i]) for i in range(1, len(request.prompt))]
        if not request.computes_all:
            assert not found
        elif finish in (FinishReason.STOP, FinishReason.LENGTH):
            assert found == expected
        else:
            assert found == expected[: len(found)]


INFOS = [
    pytest.param(make_info(), id="unified"),
    pytest.param(make_info(unified=False), id="split"),
    pytest.param(make_info(cells=13), id="tight"),
    pytest.param(make_info(num_sequences=3, batch=3), id="small-steps"),
    pytest.param(make_info(can_trim=False), id="recurrent"),
    pytest.param(make_info(store_bytes=40_000), id="store"),
    pytest.param(make_info(cells=13, store_bytes=25_000, store_disk_bytes=60_000), id="tight-disk"),
    pytest.param(make_info(unified=False, store_bytes=25_000, store_disk_bytes=40_000), id="split-disk"),
]


class SchedulerMachine(RuleBasedStateMachine):
    """Any order of arrivals, cancels, faults and steps."""

    @initialize(
        info=st.sampled_from([param.values[0] for param in INFOS]),
        prefix_cache=st.booleans(),
        free=st.booleans(),
        drafter=st.sampled_from([None, Eager, Clairvoyant]),
        forces=st.sampled_from([0, 0, 1, 5]),
    )
    def build(
        self, info: ModelInfo, prefix_cache: bool, free: bool, drafter: type[Eager] | None, forces: int
    ) -> None:
        self.harness = Harness(
            info,
            prefix_cache=prefix_cache,
            moves=FreeMoves(StepTimes()) if free else None,
            drafter=drafter and drafter(3),
            forces=forces,
        )

    @rule(
        prompt=PROMPTS,
        max_tokens=st.integers(0, 5),
        min_tokens=st.integers(0, 3),
        ignore_eos=st.booleans(),
        priority=st.integers(-1, 1),
        salt=st.sampled_from(["", "t"]),
        scored=st.booleans(),
    )
    def submit(
        self,
        prompt: tuple[int, ...],
        max_tokens: int,
        min_tokens: int,
        ignore_eos: bool,
        priority: int,
        salt: str,
        scored: bool,
    ) -> None:
        self.harness.submit(
            prompt,
            max_tokens,
            min_tokens=min(min_tokens, max_tokens),
            ignore_eos=ignore_eos,
            priority=priority,
            cache_salt=salt,
            sampling=SamplingParams(num_prompt_logprobs=0 if scored else -1),
        )

    @precondition(lambda self: self.harness.requests)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.harness.requests)))
        self.harness.scheduler.cancel(request_id, self.harness.now)

    @rule(count=st.integers(1, 4))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.harness.step()

    @rule(
        seqs=st.frozensets(st.integers(0, 4), max_size=2),
        no_cells=st.booleans(),
        store=st.frozensets(st.sampled_from(["save", "restore", "load", "write"])),
    )
    def fault(self, seqs: frozenset[int], no_cells: bool, store: frozenset[str]) -> None:
        self.harness.backend.faults = Faults(no_cells=no_cells, fail=seqs, store=store)
        self.harness.step()

    @invariant()
    def accounts_are_exact(self) -> None:
        if hasattr(self, "harness"):
            self.harness.scheduler.check()

    @invariant()
    def a_look_from_outside_shows_everybody_once(self) -> None:
        if not hasattr(self, "harness"):
            return
        scheduler, info = self.harness.scheduler, self.harness.info
        snapshot = scheduler.snapshot(self.harness.now)
        views = snapshot.sequences
        assert len({view.seq for view in views}) == len(views) <= info.num_sequences
        active = [view for view in views if view.phase in (Phase.PREFILL, Phase.DECODE)]
        assert len(active) == scheduler.num_running
        assert snapshot.waiting + sum(bool(view.request_id) for view in views) == len(
            scheduler.inspect().requests
        )
        held = sum(view.computed_tokens for view in views)
        assert snapshot.kv_used == held or (info.kv_unified and snapshot.kv_used <= held)

    def teardown(self) -> None:
        if hasattr(self, "harness"):
            self.harness.run()
            self.harness.check_answers()
            assert self.harness.scheduler.num_running == self.harness.scheduler.num_waiting == 0
            assert not self.harness.backend.samplers
            assert all(events[-1].finish for events in self.harness.events.values())


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("min_tokens", range(4))
@pytest.mark.parametrize("info", [make_info(slots=1), make_info(slots=1, unified=False)])
def test_right_drafts_say_what_would_have_been_said(info: ModelInfo, min_tokens: int) -> None:
    """Wherever the end comes: after drafts that were right, and before the last of them."""
    for length in range(1, 5):
        for prompt in itertools.product((1, 2), repeat=length):
            harness = Harness(info, drafter=Clairvoyant(4))
            harness.submit(prompt, 7, min_tokens=min_tokens)
            harness.run()
            harness.check_answers()


@pytest.mark.parametrize("info", INFOS)
@pytest.mark.parametrize("forces", [1, 3, 20])
def test_forced_tokens_are_computed_together_and_say_the_same(info: ModelInfo, forces: int) -> None:
    """Everybody gets what would have been drawn, in fewer steps, whatever room there is."""
    steps = []
    for count in (0, forces):
        harness = Harness(info, forces=count)
        for prompt in itertools.product((1, 2), repeat=3):
            harness.submit(prompt, 7)
        harness.run()
        harness.check_answers()
        steps.append(harness.num_steps)
    assert steps[1] < steps[0]


@pytest.mark.parametrize("cells", range(10, 24))
def test_drafts_keep_to_the_cells_there_are(cells: int) -> None:
    harness = Harness(make_info(cells=cells), drafter=Clairvoyant(4))
    for prompt in itertools.product((1, 2), repeat=3):
        harness.submit(prompt, 7, ignore_eos=True)
    harness.run()
    harness.check_answers()


@pytest.mark.parametrize("info", INFOS)
@given(
    prompts=st.lists(PROMPTS, min_size=1, max_size=8),
    priorities=st.lists(st.integers(-2, 2), min_size=8, max_size=8),
)
@settings(deadline=None)
def test_everybody_is_served_whatever_the_priorities(
    info: ModelInfo, prompts: list[tuple[int, ...]], priorities: list[int]
) -> None:
    harness = Harness(info)
    for prompt, priority in zip(prompts, priorities, strict=False):
        harness.submit(prompt, priority=priority)
    harness.run()
    harness.check_answers()
    assert sorted(harness.finished_order) == sorted(harness.requests)


@given(st.lists(st.lists(st.integers(1, 2), min_size=3, max_size=9).map(tuple), min_size=2, max_size=8))
@settings(deadline=None)
def test_equals_are_admitted_in_the_order_of_arrival(prompts: list[tuple[int, ...]]) -> None:
    """Fairness: with one slot and prompts of similar length, first come is first served."""
    harness = Harness(make_info(slots=1, num_sequences=2))
    order = [harness.submit(prompt) for prompt in prompts]
    harness.run()
    assert harness.finished_order == order


def test_a_better_priority_goes_first_but_not_for_ever() -> None:
    harness = Harness(make_info(slots=1, num_sequences=2))
    harness.submit((1, 1), 4, ignore_eos=True)
    harness.step()
    old = harness.submit((1, 2), priority=1)
    better = harness.submit((2, 1), priority=0)
    harness.now += DEFAULT.aging_s + 1
    late = harness.submit((2, 2), priority=0)
    harness.run()
    order = [request_id for request_id in harness.finished_order if request_id in (old, better, late)]
    assert order == [better, old, late]


def test_no_steady_stream_of_urgent_requests_starves_a_patient_one() -> None:
    harness = Harness(make_info(slots=1, num_sequences=2))
    patient = harness.submit((1, 2, 1), priority=5)
    for _ in range(int(6 * DEFAULT.aging_s)):
        if harness.scheduler.num_waiting < 3:
            harness.submit((2, 1), 1, priority=0)
        harness.step()
    assert harness.events[patient], "five levels of priority are worth five times the ageing time, no more"


def test_a_shared_prefix_is_computed_once() -> None:
    """Requests that arrive together with the same beginning wait for the first of them."""
    info = make_info(slots=4, num_sequences=8, ctx=120, cells=400, batch=16)
    harness = Harness(info)
    shared = tuple(1 + i % 2 for i in range(70))
    ids = [harness.submit((*shared, 1, 1 + i % 2, i % 2 + 1, 2), 3) for i in range(4)]
    harness.run()
    harness.check_answers()
    cached = [harness.events[i][-1].usage.cached_tokens for i in ids]  # type: ignore[union-attr]
    assert cached[0] == 0
    assert all(tokens > len(shared) - DEFAULT.min_wait for tokens in cached[1:])


@pytest.mark.parametrize("info", INFOS)
def test_a_scored_prompt_is_computed_whole_and_kept_for_nobody(info: ModelInfo) -> None:
    harness = Harness(info)
    prompt = (1, 2, 1, 1, 2, 2)
    scored = SamplingParams(num_prompt_logprobs=0)
    ids = [harness.submit(prompt, most, sampling=scored) for most in (2, 0, 2)]
    harness.run()
    harness.check_answers()
    assert [harness.events[i][-1].usage.cached_tokens for i in ids] == [0, 0, 0]  # type: ignore[union-attr]
    assert harness.scheduler.cells_used == 0


def test_salts_keep_tenants_apart() -> None:
    harness = Harness(make_info(ctx=40, cells=100, batch=40))
    prompt = tuple([1, 2] * 10)
    for salt in ("a", "b", "a"):
        harness.submit(prompt, 2, cache_salt=salt)
        harness.run()
    cached = [events[-1].usage.cached_tokens for events in harness.events.values()]  # type: ignore[union-attr]
    assert cached == [0, 0, len(prompt) - 1]


def test_when_cells_run_out_the_last_in_line_pauses_and_nobody_fails() -> None:
    """Oversubscription: three requests want more cells than there are."""
    harness = Harness(make_info(slots=3, ctx=20, cells=24))
    ids = [harness.submit((1, 2, 1 + i % 2, 2), 14, ignore_eos=True) for i in range(3)]
    preempted = 0
    while harness.scheduler.has_work:
        harness.step()
        preempted = harness.scheduler.counters.preemptions
    harness.check_answers()
    assert preempted > 0
    assert all(harness.events[i][-1].finish is FinishReason.LENGTH for i in ids)


@pytest.mark.parametrize(("slots", "cells", "blocked"), [(2, 24, True), (1, 24, False), (2, 48, False)])
def test_who_waits_for_cells_is_told_from_who_waits_for_a_slot(slots: int, cells: int, blocked: bool) -> None:
    harness = Harness(make_info(slots=slots, ctx=24, cells=cells))
    harness.submit((1, 2) * 8, 4, ignore_eos=True)
    harness.submit((2, 1) * 8, 4, ignore_eos=True)
    harness.run()
    harness.check_answers()
    assert (harness.scheduler.counters.kv_blocked > 0) is blocked


def test_a_cancelled_request_leaves_its_slot_at_once() -> None:
    harness = Harness(make_info(slots=1, num_sequences=2))
    running = harness.submit((1, 1), 9, ignore_eos=True)
    waiting = harness.submit((2, 2), 1)
    harness.step()
    harness.scheduler.cancel(running, harness.now)
    harness.step()
    assert harness.events[running][-1].finish is FinishReason.CANCELLED
    assert harness.events[waiting], "the slot was free in the very next step"


def test_a_prompt_that_can_never_fit_is_answered_and_not_queued() -> None:
    harness = Harness(make_info(ctx=6, cells=8))
    request_id = harness.submit((1,) * 7)
    harness.step()
    assert harness.events[request_id][-1].finish is FinishReason.ERROR
    assert "from 1 to 6 fit" in (harness.events[request_id][-1].error or "")


def test_a_preempted_request_may_end_once_it_has_its_minimum() -> None:
    """The ban on end tokens is lifted also when the next token is drawn after computing everything again."""
    for prompt in [(1,), (2,), (1, 2), (2, 1), (1, 1), (2, 2), (1, 1, 1), (1, 1, 2)]:
        harness = Harness(make_info())
        request_id = harness.submit(prompt, 9, min_tokens=2)
        while len(harness.tokens(request_id)) < 2:
            harness.step()
        running = harness.scheduler.inspect().running
        for sequence in list(running.by_seq.values()):
            running.preempt(sequence)
        harness.run()
        harness.check_answers()
