"""Memory that runs out costs slots, never the instance."""

from __future__ import annotations

import pytest

from rllm.backends.options import LlamaOptions, fewer, with_slots
from rllm.errors import EngineError, StartError
from rllm.workers.frames import WorkerSpec
from tests.serving.conftest import StartPool, ask, plan, text_of


async def test_an_instance_starts_with_as_many_slots_as_there_is_memory_for(start_pool: StartPool) -> None:
    pool, witness = await start_pool(plan("m", slots=8, most_slots=4))
    assert pool.model("m").info.slots == 4
    assert [seen for seen in witness.seen if seen[0] == "fewer"] == [
        ("fewer", "m-0", "8", "6"),
        ("fewer", "m-0", "6", "4"),
    ]
    assert await text_of(pool.submit(pool.model("m"), [ask("a", "[[say yes]]")]).streams[0]) == "yes"


async def test_where_not_even_one_fits_it_says_so(start_pool: StartPool) -> None:
    with pytest.raises(StartError, match="fake"):
        await start_pool(plan("m", slots=1, most_slots=-1))


async def test_while_serving_the_worker_is_replaced_by_a_smaller_one(start_pool: StartPool) -> None:
    pool, witness = await start_pool(plan("m", slots=4))
    with pytest.raises(EngineError):
        await text_of(pool.submit(pool.model("m"), [ask("a", "[[oom 2]]")]).streams[0])
    await witness.wait_for("m-0", "ready", times=2)
    assert ("fewer", "m-0", "4", "3") in witness.seen
    (instance,) = pool.instances
    assert instance.outstanding.load().slots == 3
    assert await text_of(pool.submit(pool.model("m"), [ask("b", "[[say yes]]")]).streams[0]) == "yes"


async def test_another_death_costs_no_slots(start_pool: StartPool) -> None:
    pool, witness = await start_pool(plan("m", slots=4))
    with pytest.raises(EngineError):
        await text_of(pool.submit(pool.model("m"), [ask("a", "[[die 2]]")]).streams[0])
    await witness.wait_for("m-0", "ready", times=2)
    assert pool.instances[0].outstanding.load().slots == 4


def test_slots_shrink_to_one_and_no_further() -> None:
    seen, slots = [], 64
    while slots > 1:
        slots = fewer(slots)
        seen.append(slots)
    assert seen[0] == 48
    assert fewer(1) == 1


def test_a_pool_of_cells_shrinks_with_them_down_to_one_context() -> None:
    options = LlamaOptions(slots=8, ctx_per_slot=1024, kv="unified", kv_cells=4096)
    assert with_slots(options, 6).kv_cells == 3072
    assert with_slots(options, 1).kv_cells == 1024
    assert with_slots(LlamaOptions(slots=8), 6).kv_cells == 0


def test_a_specification_knows_its_slots_whatever_the_backend() -> None:
    spec = WorkerSpec(name="m-0", llama=LlamaOptions(slots=8))
    assert spec.with_slots(6).slots == 6
