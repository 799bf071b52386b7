"""Which prompts share a prefill step of a split cache."""

from __future__ import annotations

import msgspec

from rllm.engine.build import build_scheduler
from rllm.engine.phases import ChunkSizer
from rllm.engine.types import EngineRequest, SamplingParams
from tests.property.simulator import Vocabulary, make_info


def lengths_of_first_step(prompts: list[int], *, unified: bool = False, gpu: bool = True) -> list[int]:
    info = make_info(slots=8, ctx=1000, cells=8000, unified=unified, batch=1000)
    info = msgspec.structs.replace(info, flat_decode=gpu)
    scheduler = build_scheduler(info, Vocabulary(), prefix_cache=False)
    for number, length in enumerate(prompts):
        scheduler.submit(
            EngineRequest(
                id=str(number), prompt=(1,) * length, max_tokens=1, sampling=SamplingParams(temperature=0.0)
            ),
            0.0,
        )
    return [len(chunk.tokens) for chunk in scheduler.plan(0.0).chunks]


def test_a_step_that_is_nearly_full_begins_no_prompt_it_cannot_complete() -> None:
    assert lengths_of_first_step([400, 400, 400]) == [400, 400]


def test_a_shorter_prompt_may_still_fill_it() -> None:
    assert lengths_of_first_step([400, 400, 400, 150]) == [400, 400, 150]


def test_a_step_with_much_room_begins_a_long_one() -> None:
    assert lengths_of_first_step([300, 900]) == [300, 700]


def test_on_a_cpu_nothing_is_begun_to_fill_a_step() -> None:
    assert lengths_of_first_step([300, 900], gpu=False) == [300]
    assert lengths_of_first_step([300, 900, 500], gpu=False) == [300, 500]


def test_a_prompt_that_can_be_completed_may_overrun_a_step() -> None:
    cpu = ChunkSizer(most=256, fills=False)
    assert cpu.size(100, 0, 96) == 100
    assert cpu.size(144, 0, 96) == 144
    assert cpu.size(145, 0, 96) == 96
    assert cpu.size(80, 20, 96) == 80  # behind a short one, too
    assert cpu.size(60, 60, 96) == 0  # but not where the step is half full
    assert cpu.size(300, 0, 256) == 256  # nor beyond the batch


def test_in_a_unified_cache_the_step_is_filled() -> None:
    assert lengths_of_first_step([400, 400, 400], unified=True) == [400, 400, 200]
