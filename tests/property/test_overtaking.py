"""Short prompts pass long ones, and nobody pays more for it than was promised."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from rllm.engine.port import Plan, StepResult
from rllm.engine.tuning import DEFAULT
from rllm.engine.types import ModelInfo
from tests.property.simulator import make_info
from tests.property.test_scheduler import Harness

RATIO, SHARE = DEFAULT.pass_ratio, DEFAULT.pass_share
BATCH = 8
ROOMY = make_info(slots=12, num_sequences=12, ctx=64, cells=12 * 64, batch=BATCH)
ONE_SLOT = make_info(slots=1, num_sequences=1, ctx=64, cells=64, batch=BATCH)


class Watched(Harness):
    """Notes what was computed for whom, step by step. Nothing is shared: lengths are what they seem."""

    def __init__(self, info: ModelInfo) -> None:
        super().__init__(info, prefix_cache=False)
        self.steps: list[dict[str, int]] = []
        self._execute = self.backend.execute
        self.backend.execute = self._note  # type: ignore[method-assign]

    def _note(self, plan: Plan) -> StepResult:
        running = self.scheduler.inspect().running.by_seq
        self.steps.append({running[c.seq].request.id: len(c.tokens) for c in plan.chunks})
        return self._execute(plan)

    def arrive(self, length: int, **options: object) -> str:
        return self.submit(tuple(1 + (length + i) % 2 for i in range(length)), 1, **options)

    def serve(self, arrivals: list[tuple[int, int]]) -> list[tuple[str, int]]:
        """Let (steps later, length) arrive; (request, length) in the order of arrival."""
        arrived = []
        for steps_later, length in arrivals:
            for _ in range(steps_later):
                self.step()
            arrived.append((self.arrive(length), length))
        self.run()
        self.check_answers()
        return arrived

    def began(self, request_id: str) -> int:
        return next(number for number, step in enumerate(self.steps) if request_id in step)

    def ended(self, request_id: str) -> int:
        """The step that computed the last of its prompt: with one token each, its last step."""
        return max(number for number, step in enumerate(self.steps) if request_id in step)


ARRIVALS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), min_size=2, max_size=12)


@given(ARRIVALS)
@settings(deadline=None, max_examples=300)
def test_what_passes_is_bounded_by_what_would_have_been_waited_for_anyway(
    arrivals: list[tuple[int, int]],
) -> None:
    """Before the last token of a prompt, later ones get at most SHARE of all prompts up to this one."""
    watched = Watched(ROOMY)
    arrived = watched.serve(arrivals)
    for place, (request_id, _) in enumerate(arrived):
        later = {other for other, _ in arrived[place + 1 :]}
        before = watched.steps[: watched.ended(request_id)]
        passed = sum(count for step in before for other, count in step.items() if other in later)
        assert passed <= SHARE * sum(length for _, length in arrived[: place + 1])


@given(ARRIVALS)
@settings(deadline=None, max_examples=300)
def test_for_a_slot_nobody_waits_more_than_twice_as_many_turns(arrivals: list[tuple[int, int]]) -> None:
    watched = Watched(ONE_SLOT)
    arrived = watched.serve(arrivals)
    for place, (request_id, _) in enumerate(arrived):
        began = watched.began(request_id)
        passed = sum(1 for other, _ in arrived[place + 1 :] if watched.began(other) < began)
        assert passed <= place + 1


@given(st.lists(st.integers(3, 3 * RATIO - 1), min_size=2, max_size=12))
@settings(deadline=None)
def test_prompts_of_about_the_same_length_are_served_in_the_order_of_arrival(lengths: list[int]) -> None:
    for info in (ROOMY, ONE_SLOT):
        watched = Watched(info)
        arrived = watched.serve([(0, length) for length in lengths])
        ends = [watched.ended(request_id) for request_id, _ in arrived]
        assert ends == sorted(ends)


@pytest.mark.parametrize("unified", [True, False], ids=["unified", "split"])
def test_a_short_prompt_does_not_wait_for_a_long_one(unified: bool) -> None:
    """It is computed in the very next step, and the long one loses no more than that."""
    watched = Watched(make_info(slots=4, ctx=64, cells=200, batch=BATCH, unified=unified))
    long = watched.arrive(40)
    watched.step()
    short = watched.arrive(4)
    watched.run()
    assert watched.began(short) == watched.ended(short) == 1
    assert watched.ended(long) == 5


def test_a_long_prompt_is_not_passed_for_ever() -> None:
    """However many short ones keep coming."""
    watched = Watched(ROOMY)
    long = watched.arrive(40)
    most = int(40 * (1 + SHARE) / BATCH)
    while not watched.events[long] and watched.num_steps <= most:
        watched.arrive(4)
        watched.arrive(4)
        watched.step()
    assert watched.ended(long) <= most


def test_a_short_prompt_of_worse_priority_does_not_pass() -> None:
    watched = Watched(ROOMY)
    long = watched.arrive(40)
    patient = watched.arrive(4, priority=1)
    watched.run()
    assert watched.began(patient) >= watched.ended(long)


def test_a_long_prompt_with_little_left_to_compute_counts_as_short() -> None:
    """What is resident needs no computing: a conversation goes on beside a long new prompt."""
    harness = Harness(make_info(slots=4, num_sequences=8, ctx=200, cells=800, batch=BATCH))
    conversation = tuple(1 + (i * i) % 3 % 2 for i in range(60))
    harness.submit(conversation, 1)
    harness.run()
    long = harness.submit((2,) * 80, 1)
    harness.step()
    turn = harness.submit((*conversation, 1, 2, 2), 1)
    harness.run()
    assert harness.finished_order.index(turn) < harness.finished_order.index(long)
