"""What steps take, learned from the steps, and how much of a prompt fits beside decodes therefore."""

from __future__ import annotations

import pytest

from rllm.engine.build import build_scheduler
from rllm.engine.port import Plan, Status, StepResult
from rllm.engine.times import StepShape, StepTimes
from rllm.engine.tuning import DEFAULT
from rllm.engine.types import EngineRequest, SamplingParams
from tests.property.simulator import Vocabulary, make_info


def learned(*steps: tuple[StepShape, float]) -> StepTimes:
    times = StepTimes()
    for shape, seconds in steps:
        times.learn(shape, seconds)
    return times


def test_a_prompt_token_costs_what_a_step_takes_beside_its_decodes() -> None:
    times = learned((StepShape(decodes=4, rows=4), 0.02), (StepShape(decodes=4, prefill=100, rows=104), 0.12))
    assert times.decode_s == 0.02
    assert times.token_s == pytest.approx(0.001)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(StepShape(prefill=DEFAULT.min_learn - 1, rows=15), id="few tokens"),
        pytest.param(StepShape(prefill=100, rows=100, scores=True), id="scored"),
        pytest.param(StepShape(), id="nothing"),
    ],
)
def test_some_steps_say_nothing_about_a_prompt_token(shape: StepShape) -> None:
    assert learned((shape, 1.0)).token_s is None


def prefill_beside(decode_s: float, *, unified: bool) -> int:
    """Prompt tokens of the step after somebody began to decode, with 1 ms for each and 100 ms to aim at."""
    times = learned((StepShape(decodes=1, rows=1), decode_s), (StepShape(prefill=100, rows=100), 0.1))
    info = make_info(slots=2, ctx=2000, cells=4000, batch=1000, unified=unified)
    scheduler = build_scheduler(info, Vocabulary(), prefix_cache=False, times=times)

    def submit(name: str, length: int) -> Plan:
        sampling = SamplingParams(temperature=0.0)
        request = EngineRequest(id=name, prompt=(1,) * length, max_tokens=9, sampling=sampling)
        scheduler.submit(request, 0.0)
        return scheduler.plan(0.0)

    plan = submit("first", 10)
    scheduler.commit(plan, StepResult(Status.OK, {chunk.seq: [1] for chunk in plan.chunks}), 0.0)
    return submit("second", 1500).num_prefill


def test_beside_decodes_a_step_aims_at_its_target() -> None:
    assert prefill_beside(0.02, unified=True) == 80
    assert prefill_beside(0.08, unified=True) == 120, "prefill gets its share of the time"
    assert prefill_beside(0.02, unified=False) == 250, "a quarter of the largest step at least"
