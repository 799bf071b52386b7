"""A worker is ready when it has computed; where it cannot, safer options are tried until none are left."""

from __future__ import annotations

import pytest

from rllm.backends.options import Fallback, LlamaOptions, fallbacks
from rllm.errors import Overloaded, StartError
from rllm.serving.fallbacks import Ways
from rllm.workers.frames import WorkerSpec
from tests.serving.conftest import StartPool, ask, plan, text_of

WAYS: tuple[dict[str, str], ...] = (
    {"repack": "off"},
    {"flash_attn": "off"},
    {"repack": "off", "flash_attn": "off"},
)


@pytest.mark.parametrize("fault", ["abort", "hang", "nan", "constant"])
async def test_the_first_options_that_compute_are_kept(start_pool: StartPool, fault: str) -> None:
    pool, witness = await start_pool(
        plan("m", self_test=fault, computes_with={"flash_attn": "off"}, fallbacks=WAYS)
    )
    assert [seen for seen in witness.seen if seen[0] in ("crash", "fallback")] == [
        ("crash", "m-0", "as it was asked for"),
        ("crash", "m-0", "--repack off"),
        ("fallback", "m-0", "flash_attn"),
    ]
    ((name, fallback),) = pool.health().fallbacks
    assert (name, fallback.options) == ("m-0", {"flash_attn": "off"})
    assert fallback.certain is (fault != "hang")
    assert pool.health().ready
    assert await text_of(pool.submit(pool.model("m"), [ask("a", "[[say yes]]")]).streams[0]) == "yes"


async def test_a_replaced_worker_starts_with_them_at_once(start_pool: StartPool) -> None:
    pool, witness = await start_pool(
        plan("m", self_test="abort", computes_with={"repack": "off"}, fallbacks=WAYS)
    )
    accepted = pool.submit(pool.model("m"), [ask("a", "[[say yes]][[abort 1]]")])
    await witness.wait_for("m-0", "ready", times=2)
    assert witness.seen.count(("crash", "m-0", "as it was asked for")) == 1
    assert witness.seen.count(("fallback", "m-0", "repack")) == 2
    accepted.streams[0].cancel()


async def test_alone_and_with_no_options_left_it_ends_the_server(start_pool: StartPool) -> None:
    with pytest.raises(StartError) as caught:
        await start_pool(plan("m", self_test="abort", fallbacks=WAYS))
    for words in (
        "m-0 does not compute",
        "with --repack off, was killed by signal 6 (SIGABRT)",
        "--repack off --flash-attn off",
        "RUNBOOK",
    ):
        assert words in str(caught.value)


async def test_beside_others_it_is_named_and_they_are_served(start_pool: StartPool) -> None:
    pool, witness = await start_pool(plan("bad", self_test="abort"), plan("good"))
    health = pool.health()
    assert health.ready
    ((model, reason),) = health.not_served
    assert model == "bad"
    assert "SIGABRT" in reason
    assert ("not served", "bad") in witness.seen
    assert dict(health.instances) == {"bad-0": "failed", "good-0": "ready"}
    assert [model.id for model in pool.models()] == ["good"]
    with pytest.raises(Overloaded, match="/health"):
        pool.model("bad")
    assert await text_of(pool.submit(pool.model(None), [ask("a", "[[say yes]]")]).streams[0]) == "yes"


async def test_its_fallback_model_stands_in(start_pool: StartPool) -> None:
    pool, witness = await start_pool(plan("bad", self_test="nan", fallback="good"), plan("good"))
    assert pool.model("bad").id == "good"
    assert ("rerouted", "bad", "good", "fallback") in witness.seen


async def test_where_all_are_required_one_ends_the_server(start_pool: StartPool) -> None:
    with pytest.raises(StartError, match="bad-0"):
        await start_pool(plan("bad", self_test="abort"), plan("good"), require_all=True)


async def test_a_server_without_any_model_ends(start_pool: StartPool) -> None:
    with pytest.raises(StartError, match=r"a-0.*b-0"):
        await start_pool(plan("a", self_test="abort"), plan("b", self_test="nan"))


async def test_short_memory_and_a_crash_are_told_apart(start_pool: StartPool) -> None:
    pool, witness = await start_pool(
        plan("m", slots=4, most_slots=3, self_test="abort", computes_with={"repack": "off"}, fallbacks=WAYS)
    )
    assert pool.model("m").info.slots == 3
    assert ("fewer", "m-0", "4", "3") in witness.seen
    assert ("fallback", "m-0", "repack") in witness.seen


def test_options_that_were_chosen_stay() -> None:
    assert fallbacks(LlamaOptions(), on_gpu=False) == WAYS
    assert fallbacks(LlamaOptions(flash_attn="on"), on_gpu=False) == ({"repack": "off"},)
    assert fallbacks(LlamaOptions(flash_attn="on", repack="on"), on_gpu=False) == ()
    assert fallbacks(LlamaOptions(cache_type_v="q8_0"), on_gpu=False) == ({"repack": "off"},)


def test_on_a_gpu_graphs_are_left_out_too_and_weights_that_are_all_there_need_no_repacking() -> None:
    on_card = fallbacks(LlamaOptions(), on_gpu=True)
    assert on_card == (
        {"flash_attn": "off"},
        {"cuda_graphs": "off"},
        {"flash_attn": "off", "cuda_graphs": "off"},
    )
    assert fallbacks(LlamaOptions(gpu_layers=4), on_gpu=True)[0] == {"repack": "off"}


def test_a_way_that_changes_nothing_is_not_tried() -> None:
    """Nor the same one twice: with repacking off already, the last two are one."""
    spec = WorkerSpec(name="m-0", llama=LlamaOptions(repack="off"), fallbacks=WAYS)
    ways = Ways(spec)
    ways.failed("m-0 was killed")
    assert ways.fallback == Fallback(options={"flash_attn": "off"}, reason="was killed")
    with pytest.raises(StartError, match="with --flash-attn off, was killed again"):
        ways.failed("m-0 was killed again")
