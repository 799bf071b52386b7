"""What clients see when a worker dies or stands still: nothing, or an error with a name."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from rllm.errors import EngineError, Overloaded
from rllm.serving.terms import Terms
from rllm.settings.limits import BreakerSettings, InstanceSettings
from tests.serving.conftest import StartPool, ask, first_events, plan, text_of

SAY = "[[say " + "all is well " * 10 + "]]"
WORDS = "all is well " * 10


async def test_a_request_that_has_streamed_nothing_is_computed_elsewhere_unseen(
    start_pool: StartPool,
) -> None:
    pool, witness = await start_pool(plan("m", 2))
    stream = pool.submit(pool.model("m"), [ask("a", SAY, 200)]).streams[0]
    victim = next(i for i in pool.instances if len(i.outstanding.pending))
    os.kill(victim.pid, signal.SIGKILL)
    assert await text_of(stream) == WORDS
    assert ("lost", "a", "retried") in witness.seen


async def test_without_another_instance_it_waits_for_the_new_worker(start_pool: StartPool) -> None:
    pool, _ = await start_pool(plan("m"))
    stream = pool.submit(pool.model("m"), [ask("a", SAY, 200)]).streams[0]
    os.kill(pool.instances[0].pid, signal.SIGKILL)
    assert await text_of(stream) == WORDS


async def test_one_that_has_streamed_ends_with_a_typed_error(start_pool: StartPool) -> None:
    pool, witness = await start_pool(plan("m", 2))
    stream = pool.submit(pool.model("m"), [ask("a", SAY, 200)]).streams[0]
    assert (await first_events(stream)).startswith("a")
    os.kill(next(i for i in pool.instances if len(i.outstanding.pending)).pid, signal.SIGKILL)
    with pytest.raises(EngineError) as error:
        await text_of(stream)
    assert error.value.code == "worker_lost"
    assert ("lost", "a", "failed") in witness.seen


async def test_one_whose_client_waits_for_the_whole_starts_over_at_any_time(start_pool: StartPool) -> None:
    pool, _ = await start_pool(plan("m", 2))
    whole = pool.submit(pool.model("m"), [ask("a", SAY, 200)], Terms(streaming=False)).streams[0]
    other = pool.submit(pool.model("m"), [ask("b", SAY, 200)]).streams[0]
    await first_events(other)  # both run by now, on two instances
    while whole.first_token_at is None:
        await first_events(other)
    os.kill(pool.instances[0].pid, signal.SIGKILL)
    assert await text_of(whole) == WORDS


async def test_a_request_that_kills_its_workers_is_tried_twice_and_no_more(start_pool: StartPool) -> None:
    pool, witness = await start_pool(plan("m", 2))
    stream = pool.submit(pool.model("m"), [ask("poison", "[[abort]]")]).streams[0]
    with pytest.raises(EngineError) as error:
        await text_of(stream)
    assert error.value.code == "worker_lost"
    assert [what for what in witness.seen if what[0] == "lost"] == [
        ("lost", "poison", "retried"),
        ("lost", "poison", "failed"),
    ]


@pytest.mark.parametrize("how", ["stopped", "wedged"])
async def test_a_worker_without_progress_is_found_and_replaced(start_pool: StartPool, how: str) -> None:
    pool, witness = await start_pool(plan("m", 2), stall_s=1.0)
    if how == "stopped":
        stream = pool.submit(pool.model("m"), [ask("a", SAY, 200)]).streams[0]
        victim = next(i for i in pool.instances if len(i.outstanding.pending))
        os.kill(victim.pid, signal.SIGSTOP)
        assert await text_of(stream) == WORDS
    else:
        stream = pool.submit(pool.model("m"), [ask("a", "[[hang 3]]")]).streams[0]
        victim = next(i for i in pool.instances if len(i.outstanding.pending))
        with pytest.raises(EngineError):
            await text_of(stream)
    await witness.wait_for("stall", victim.name)
    await witness.wait_for(victim.name, "ready", times=2)


async def test_a_cancelled_request_is_not_taken_up_again(start_pool: StartPool) -> None:
    pool, witness = await start_pool(plan("m", 2))
    stream = pool.submit(pool.model("m"), [ask("a", SAY, 200)]).streams[0]
    victim = next(i for i in pool.instances if len(i.outstanding.pending))
    os.kill(victim.pid, signal.SIGSTOP)
    stream.cancel()
    os.kill(victim.pid, signal.SIGKILL)
    await witness.wait_for("lost", "a", "failed")
    assert all(len(i.outstanding.pending) == 0 for i in pool.instances)


async def test_faults_open_the_breaker_and_then_the_fallback_answers(start_pool: StartPool) -> None:
    instance = InstanceSettings(breaker=BreakerSettings(faults=2, open_s=1000))
    pool, witness = await start_pool(plan("big", fallback="small"), plan("small"), instance=instance)
    for name in ("a", "b"):
        with pytest.raises(EngineError):
            await text_of(pool.submit(pool.model("big"), [ask(name, "[[fail]]")]).streams[0])
    assert ("breaker", "big-0", "open") in witness.seen
    accepted = pool.submit(pool.model("big"), [ask("c", SAY, 200)])
    assert accepted.model.id == "small"
    assert await text_of(accepted.streams[0]) == WORDS
    assert ("rerouted", "big", "small", "fallback") in witness.seen


async def test_with_every_breaker_open_the_door_says_when_to_come_back(start_pool: StartPool) -> None:
    instance = InstanceSettings(breaker=BreakerSettings(faults=1, open_s=50))
    pool, _ = await start_pool(plan("m"), instance=instance)
    with pytest.raises(EngineError):
        await text_of(pool.submit(pool.model("m"), [ask("a", "[[fail]]")]).streams[0])
    with pytest.raises(Overloaded) as refusal:
        pool.submit(pool.model("m"), [ask("b", SAY)])
    assert 40 < (refusal.value.retry_after_s or 0) <= 50
    assert not pool.health().ready


async def test_lost_work_is_taken_up_by_a_living_worker_whose_breaker_is_open(start_pool: StartPool) -> None:
    """It was accepted: waiting for the breaker would be a silence that nobody ends."""
    instance = InstanceSettings(breaker=BreakerSettings(faults=1, open_s=1000))
    pool, witness = await start_pool(plan("m", 2), instance=instance)
    first, second = pool.instances
    with pytest.raises(EngineError):
        await text_of(pool.submit(pool.model("m"), [ask("bad", "[[fail]]")]).streams[0])
    assert ("breaker", first.name, "open") in witness.seen
    stream = pool.submit(pool.model("m"), [ask("a", SAY, 200)]).streams[0]
    assert len(second.outstanding.pending) == 1
    os.kill(second.pid, signal.SIGKILL)
    assert await text_of(stream) == WORDS


async def test_a_worker_that_comes_back_takes_what_waits_though_its_breaker_is_open(
    start_pool: StartPool,
) -> None:
    instance = InstanceSettings(breaker=BreakerSettings(faults=1, open_s=1000))
    pool, witness = await start_pool(plan("m"), instance=instance)
    streams = pool.submit(pool.model("m"), [ask(name, SAY, 200) for name in "ab"]).streams
    os.kill(pool.instances[0].pid, signal.SIGKILL)
    assert [await text_of(stream) for stream in streams] == [WORDS, WORDS]
    assert ("breaker", "m-0", "open") in witness.seen


async def test_lost_work_keeps_its_place_in_line(start_pool: StartPool) -> None:
    """Behind another worker it does not start at the end: who was accepted first is served first."""
    pool, _ = await start_pool(plan("m", 2, slots=1))
    first, second = pool.instances
    model = pool.model("m")
    running = [pool.submit(model, [ask(name, f"{name} goes on", 400)]).streams[0] for name in ("one", "two")]
    early, late = (pool.submit(model, [ask(name, f"{name} {SAY}", 20)]).streams[0] for name in ("ear", "lat"))
    for stream in running:
        await first_events(stream)
    assert (len(first.outstanding.pending), len(second.outstanding.pending)) == (2, 2)
    os.kill(first.pid, signal.SIGKILL)
    with pytest.raises(EngineError):
        await text_of(running[0])
    assert len(second.outstanding.pending) == 3
    running[1].cancel()
    await text_of(late)
    await text_of(early)
    assert (early.first_token_at or 0) < (late.first_token_at or 0)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_workers_leave_the_signals_of_their_group_to_the_api_process(
    start_pool: StartPool, sign: signal.Signals
) -> None:
    """systemd and Ctrl-C signal every process: a drain would be over before it began."""
    pool, witness = await start_pool(plan("m"))
    stream = pool.submit(pool.model("m"), [ask("a", SAY, 200)]).streams[0]
    os.kill(pool.instances[0].pid, sign)
    assert await text_of(stream) == WORDS
    assert ("m-0", "restarting") not in witness.seen


def num_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def no_more_descriptors(spare: int) -> Iterator[None]:
    """All but ``spare`` are taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    held = []
    try:
        with suppress(OSError):
            while True:
                held.append(os.dup(0))
        for _ in range(spare):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


@pytest.mark.parametrize("spare", [0, 2, 4])
async def test_without_descriptors_it_is_tried_again_until_there_are_some(
    start_pool: StartPool, spare: int
) -> None:
    """The socket, the pipe for errors or the process itself cannot be had."""
    pool, witness = await start_pool(plan("m"))
    open_before = num_descriptors()
    os.kill(pool.instances[0].pid, signal.SIGKILL)
    await witness.wait_for("m-0", "restarting")
    with no_more_descriptors(spare):
        await witness.wait_for("start failed", "m-0", times=2)
    await witness.wait_for("m-0", "ready", times=2)
    assert await text_of(pool.submit(pool.model("m"), [ask("a", SAY, 200)]).streams[0]) == WORDS
    assert num_descriptors() == open_before


async def test_signals_meant_for_the_server_do_not_reach_the_work(start_pool: StartPool) -> None:
    pool, witness = await start_pool(plan("m"))
    pid = pool.instances[0].pid
    assert os.getsid(pid) == pid
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR2):
        os.kill(pid, number)
    assert await text_of(pool.submit(pool.model("m"), [ask("a", SAY, 200)]).streams[0]) == WORDS
    assert pool.instances[0].pid == pid
    assert ("m-0", "restarting") not in witness.seen


async def test_after_a_stall_cuda_graphs_are_off_and_nothing_unstreamed_is_lost(
    start_pool: StartPool,
) -> None:
    pool, witness = await start_pool(plan("m", fallbacks=({"cuda_graphs": "off"},)), stall_s=1.0)
    instance = pool.instances[0]
    stream = pool.submit(pool.model("m"), [ask("a", SAY, 200)]).streams[0]
    os.kill(instance.pid, signal.SIGSTOP)
    assert await text_of(stream) == WORDS
    assert instance.fallback is not None
    assert instance.fallback.options == {"cuda_graphs": "off"}
    assert "no progress" in instance.fallback.reason
    assert ("fallback", "m-0", "cuda_graphs") in witness.seen


async def test_graphs_that_were_asked_for_stay(start_pool: StartPool) -> None:
    """With --cuda-graphs on there is no such fallback among a worker's."""
    pool, _ = await start_pool(plan("m", cuda_graphs="on", fallbacks=({"repack": "off"},)), stall_s=1.0)
    stream = pool.submit(pool.model("m"), [ask("a", SAY, 200)]).streams[0]
    os.kill(pool.instances[0].pid, signal.SIGSTOP)
    assert await text_of(stream) == WORDS
    assert pool.instances[0].fallback is None
