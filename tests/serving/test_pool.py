"""Deadlines, limits, degradation and drain, over real workers."""

from __future__ import annotations

import asyncio

import pytest

from rllm.errors import Overloaded, RateLimited, TimedOut
from rllm.serving.limits import KeyLimits
from rllm.serving.pool import Pool
from rllm.serving.prefixes import prefixes_of
from rllm.serving.terms import Terms
from rllm.settings.degrade import DegradeSettings, parse_rung
from rllm.settings.limits import Limits, Timeouts
from tests.serving.conftest import StartPool, ask, first_events, plan, text_of

LONG = "tell me everything"


async def _idle(pool: Pool) -> None:
    async with asyncio.timeout(30):
        while any(len(instance.outstanding.pending) for instance in pool.instances):  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.01)


async def test_work_past_its_deadline_leaves_the_engine(start_pool: StartPool) -> None:
    pool, witness = await start_pool(plan("m"))
    stream = pool.submit(pool.model("m"), [ask("a", LONG, 480)], Terms(timeout_s=0.2)).streams[0]
    with pytest.raises(TimedOut) as error:
        await text_of(stream)
    assert error.value.code == "deadline_exceeded"
    await _idle(pool)
    assert ("timeout", "deadline_exceeded") in witness.seen


async def test_who_gets_no_slot_in_time_is_told_to_come_back(start_pool: StartPool) -> None:
    pool, witness = await start_pool(plan("m", slots=1), timeouts=Timeouts(queue_s=0.2))
    running = pool.submit(pool.model("m"), [ask("a", LONG, 400)]).streams[0]
    await first_events(running)
    waiting = pool.submit(pool.model("m"), [ask("b", LONG, 10)]).streams[0]
    with pytest.raises(Overloaded) as error:
        await text_of(waiting)
    assert error.value.code == "queue_timeout"
    assert ("timeout", "queue_timeout") in witness.seen
    running.cancel()
    await _idle(pool)


async def test_a_first_token_that_does_not_come_has_a_limit_of_its_own(start_pool: StartPool) -> None:
    pool, _ = await start_pool(plan("m", step_s=1.0), timeouts=Timeouts(first_token_s=0.2))
    with pytest.raises(TimedOut) as error:
        await text_of(pool.submit(pool.model("m"), [ask("a", LONG)]).streams[0])
    assert error.value.code == "first_token_timeout"


async def test_a_prediction_beyond_what_the_caller_accepts_is_a_refusal_now(start_pool: StartPool) -> None:
    pool, witness = await start_pool(plan("m", slots=1, step_s=0.02))
    await text_of(pool.submit(pool.model("m"), [ask("warm", LONG, 20)]).streams[0])  # a slot is held 0.4 s
    running = pool.submit(pool.model("m"), [ask("a", LONG, 400)]).streams[0]
    with pytest.raises(Overloaded, match="the first token would take") as first:
        pool.submit(pool.model("m"), [ask("b", LONG, 10)], Terms(ttft_s=0.05))
    with pytest.raises(Overloaded) as later:
        pool.submit(pool.model("m"), [ask("b2", LONG, 10)], Terms(ttft_s=0.05))
    assert (later.value.retry_after_s or 0) > (first.value.retry_after_s or 0)  # the first one goes before
    assert ("rejected", "server_is_overloaded") in witness.seen
    assert pool.submit(pool.model("m"), [ask("c", LONG, 10)], Terms(ttft_s=60)).streams
    running.cancel()


async def test_the_queue_is_bounded_however_hot_the_model_is(start_pool: StartPool) -> None:
    pool, _ = await start_pool(plan("m", slots=1), limits=Limits(max_queue_requests=1))
    streams = [pool.submit(pool.model("m"), [ask(name, LONG, 400)]).streams[0] for name in "ab"]
    await first_events(streams[0])
    with pytest.raises(Overloaded) as refusal:
        pool.submit(pool.model("m"), [ask("c", LONG)])
    assert refusal.value.retry_after_s is not None
    for stream in streams:
        stream.cancel()


async def test_the_door_says_no_before_a_prompt_is_looked_at(start_pool: StartPool) -> None:
    """Only where `submit` would say no to every prompt, and with the same words."""
    pool, witness = await start_pool(plan("m", slots=1), limits=Limits(max_queue_requests=2))
    model = pool.model("m")
    streams = [pool.submit(model, [ask(name, LONG, 400)]).streams[0] for name in "ab"]
    pool.check_open(model, 1, 0)
    with pytest.raises(Overloaded, match="1 requests wait and the limit is 2"):
        pool.check_open(model, 2, 0)
    streams += pool.submit(model, [ask("c", LONG, 400)]).streams
    with pytest.raises(Overloaded) as door:
        pool.check_open(model, 1, 0)
    with pytest.raises(Overloaded) as counter:
        pool.submit(model, [ask("d", LONG)])
    assert str(door.value) == str(counter.value)
    assert witness.seen.count(("rejected", "server_is_overloaded")) == 3
    for stream in streams:
        stream.cancel()
    pool.begin_drain()
    with pytest.raises(Overloaded) as closed:
        pool.check_open(model, 1, 0)
    assert closed.value.code == "server_shutting_down"


async def test_the_door_looks_at_the_variant_that_would_answer(start_pool: StartPool) -> None:
    rungs = tuple(map(parse_rung, ("0.5:shed=3", "0.9:route", "1.5:refuse")))
    settings = DegradeSettings(rungs, hold_s=1000)
    pool, _ = await start_pool(
        plan("big", slots=2, smaller="small"), plan("small", slots=1), degrade=settings
    )
    big = pool.model("big")
    streams = [pool.submit(big, [ask(name, LONG, 400)]).streams[0] for name in "ab"]
    pool.check_open(big, 1, 0)
    with pytest.raises(Overloaded) as shed:
        pool.check_open(big, 1, 4)
    assert shed.value.code == "low_priority_shed"
    streams += [stream for name in "cd" for stream in pool.submit(big, [ask(name, LONG, 400)]).streams]
    with pytest.raises(Overloaded, match="takes nothing new"):
        pool.check_open(big, 1, 0)
    for stream in streams:
        stream.cancel()


async def test_what_a_key_did_not_use_is_given_back_at_the_end(start_pool: StartPool) -> None:
    pool, _ = await start_pool(plan("m"), keys={"team": KeyLimits(tokens_per_min=100)})
    terms = Terms(key="team")
    request = ask("a", "[[say hi]]", 70)
    accepted = pool.submit(pool.model("m"), [request], terms)
    assert ("x-ratelimit-limit-tokens", "100") in accepted.headers
    with pytest.raises(RateLimited) as refusal:
        pool.submit(pool.model("m"), [ask("b", "[[say hi]]", 70)], terms)
    assert refusal.value.retry_after_s is not None
    assert dict(refusal.value.headers)["x-ratelimit-remaining-tokens"] == "20"
    await text_of(accepted.streams[0])
    await _idle(pool)
    assert pool.submit(pool.model("m"), [ask("c", "[[say hi]]", 70)], terms).streams


async def test_a_key_cannot_be_better_than_its_own_priority(start_pool: StartPool) -> None:
    rungs = (parse_rung("0.1:shed=0"),)
    keys = {"low": KeyLimits(priority=5)}
    pool, _ = await start_pool(plan("m"), keys=keys, degrade=DegradeSettings(rungs, hold_s=1000))
    first = pool.submit(pool.model("m"), [ask("a", LONG, 400)]).streams[0]
    with pytest.raises(Overloaded) as refusal:
        pool.submit(pool.model("m"), [ask("b", LONG, priority=-100)], Terms(key="low"))
    assert refusal.value.code == "low_priority_shed"
    first.cancel()


async def _cached(pool: Pool, name: str, key: str | None, salt: str = "") -> int:
    """Tokens of `LONG` that a request with this key finds computed."""
    stream = pool.submit(pool.model("m"), [ask(name, LONG, 2, cache_salt=salt)], Terms(key=key)).streams[0]
    async with asyncio.timeout(30):
        events = [event async for several in stream for event in several]
    assert events[-1].usage is not None
    return events[-1].usage.cached_tokens


async def test_nobody_can_measure_what_another_key_has_asked(start_pool: StartPool) -> None:
    pool, _ = await start_pool(plan("m"))
    assert await _cached(pool, "a", "one") == 0
    assert await _cached(pool, "b", "two") == 0
    assert await _cached(pool, "c", "one") > 0
    assert await _cached(pool, "d", "on", "e") == 0
    assert await _cached(pool, "e", "one", "own") == 0
    assert await _cached(pool, "f", None) == 0
    assert await _cached(pool, "g", None) > 0


async def test_an_operator_may_let_keys_share_what_is_computed(start_pool: StartPool) -> None:
    pool, _ = await start_pool(plan("m"), share_prefixes=True)
    assert await _cached(pool, "a", "one") == 0
    assert await _cached(pool, "b", "two") > 0
    assert await _cached(pool, "c", "two", "own") == 0


async def test_the_ladder_caps_then_routes_then_refuses_and_says_so(start_pool: StartPool) -> None:
    rungs = tuple(map(parse_rung, ("0.5:cap=10", "1:route", "1.5:refuse")))
    settings = DegradeSettings(rungs, hold_s=0.1)
    pool, witness = await start_pool(plan("big", slots=2, smaller="small"), plan("small"), degrade=settings)
    big, streams = pool.model("big"), []
    for name in "ab":
        accepted = pool.submit(big, [ask(name, LONG, 400)])
        streams += accepted.streams
    assert dict(accepted.headers)["x-rllm-degraded"] == "max_tokens=10"
    routed = pool.submit(big, [ask("c", LONG, 400)])
    assert (routed.model.id, dict(routed.headers)["x-rllm-degraded"]) == (
        "small",
        "max_tokens=10, model=small",
    )
    assert len(await text_of(routed.streams[0])) == 10
    streams[0].cancel()
    streams[1].cancel()
    await witness.wait_for("degraded", "big", "0")
    assert pool.submit(big, [ask("d", LONG, 10)]).headers == ()


async def test_models_that_do_not_speak_alike_are_no_variants(start_pool: StartPool) -> None:
    from rllm.errors import StartError

    with pytest.raises(StartError, match="no other model"):
        await start_pool(plan("m", smaller="nothing"))


async def test_draining_finishes_what_runs_and_ends_the_rest_with_a_name(start_pool: StartPool) -> None:
    pool, _ = await start_pool(plan("m"))
    short = pool.submit(pool.model("m"), [ask("a", "[[say bye]]")]).streams[0]
    long = pool.submit(pool.model("m"), [ask("b", LONG, 480)]).streams[0]
    await first_events(long)
    stopping = asyncio.create_task(pool.stop(drain_s=0.5))
    await asyncio.sleep(0)
    assert pool.health().reason == "draining"
    with pytest.raises(Overloaded, match="shutting down"):
        pool.submit(pool.model("m"), [ask("c", LONG)])
    assert await text_of(short) == "bye"
    with pytest.raises(Overloaded) as error:
        await text_of(long)
    assert error.value.code == "server_shutting_down"
    await stopping


async def test_before_it_stops_it_may_say_not_ready_and_still_accept(start_pool: StartPool) -> None:
    pool, _ = await start_pool(plan("m"))
    pool.begin_drain(refuse=False)
    assert not pool.health().ready
    assert await text_of(pool.submit(pool.model("m"), [ask("a", "[[say yes]]")]).streams[0]) == "yes"


async def test_the_same_prompt_goes_where_it_was_before(start_pool: StartPool) -> None:
    pool, _ = await start_pool(plan("m", 2))
    history = "a long shared history " * 10
    await text_of(pool.submit(pool.model("m"), [ask("a", history + "[[say 1]]")]).streams[0])
    await text_of(
        pool.submit(pool.model("m"), [ask("b", "quite another beginning " * 10 + "[[say 2]]")]).streams[0]
    )
    request = ask("c", history + "and more [[say 3]]")
    (prefix,) = prefixes_of([request])
    resident = [
        instance.outstanding.offer([request], [prefix], instance.submit).candidate.resident_tokens
        for instance in pool.instances
    ]
    stream = pool.submit(pool.model("m"), [request]).streams[0]
    chosen = next(n for n, instance in enumerate(pool.instances) if len(instance.outstanding.pending))
    assert resident[chosen] == max(resident) > 0
    await text_of(stream)
