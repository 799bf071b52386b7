"""What the pool shows of itself, over real workers."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from rllm.engine.snapshot import Phase
from rllm.serving.pool import Pool
from rllm.serving.view import InstanceView
from tests.serving.conftest import StartPool, ask, first_events, plan, text_of

LONG = "tell me everything"


async def look(pool: Pool, since: float = 0.0) -> InstanceView:
    """At the first instance, afresh."""
    await asyncio.sleep(0.25)  # a younger snapshot would do for everybody
    return (await pool.look(since))[0].instances[0]


async def test_every_slot_tells_what_it_does(start_pool: StartPool) -> None:
    pool, _ = await start_pool(plan("m", slots=1))
    running, waiting = (pool.submit(pool.model("m"), [ask(name, LONG, 400)]).streams[0] for name in "ab")
    await first_events(running)
    view = await look(pool)
    (sequence,) = view.sequences
    assert (sequence.request_id, sequence.phase) == ("a", Phase.DECODE)
    assert sequence.prompt_tokens == len(LONG)
    assert sequence.output_tokens > 0
    assert sequence.computed_tokens >= len(LONG)
    assert sequence.admitted_at is not None
    assert sequence.admitted_at <= (sequence.first_token_at or 0) <= time.monotonic()
    assert view.waiting == 1
    assert view.oldest_wait_s > 0
    assert view.slots == 1
    assert view.snapshot_age_s is not None
    running.cancel()
    waiting.cancel()


async def test_a_finished_request_leaves_a_span_and_its_prefix(start_pool: StartPool) -> None:
    pool, _ = await start_pool(plan("m"))
    prompt = LONG * 5
    await text_of(pool.submit(pool.model("m"), [ask("a", prompt, 8)]).streams[0])
    await text_of(pool.submit(pool.model("m"), [ask("b", prompt, 8)]).streams[0])
    view = await look(pool)
    first, second = view.spans
    assert (first.request_id, first.finish, first.output_tokens) == ("a", "length", 8)
    assert first.admitted_at <= (first.first_token_at or 0) <= first.ended_at <= second.ended_at
    assert (first.cached_tokens, second.cached_tokens) == (0, len(prompt) - 1)
    assert any(s.phase is Phase.IDLE and s.computed_tokens >= len(prompt) for s in view.sequences)
    assert (await look(pool, since=second.ended_at)).spans == ()
    assert [span.request_id for span in (await look(pool, since=first.ended_at)).spans] == ["b"]


async def test_an_idle_worker_sleeps_on_after_it_was_asked(start_pool: StartPool) -> None:
    pool, _ = await start_pool(plan("m"))
    assert (await look(pool)).sequences == ()
    assert (await look(pool)).snapshot_age_s is not None


async def test_many_who_look_cost_one_question(start_pool: StartPool) -> None:
    pool, _ = await start_pool(plan("m", step_s=0.05))
    stream = pool.submit(pool.model("m"), [ask("a", LONG, 400)]).streams[0]
    await first_events(stream)
    views = await asyncio.gather(*(pool.look(0.0) for _ in range(20)))
    ages = {view[0].instances[0].sequences[0].output_tokens for view in views}
    assert len(ages) == 1
    stream.cancel()


async def test_a_worker_that_does_not_answer_is_shown_with_what_it_said_last(start_pool: StartPool) -> None:
    pool, _ = await start_pool(plan("m"))
    pid = pool.instances[0].pid
    assert (await look(pool)).state == "ready"
    os.kill(pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(20):
            view = await look(pool)
        assert view.state == "ready"
        assert (view.snapshot_age_s or 0) > 0.2
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_lost_worker_is_counted_and_its_requests_end_as_lost(start_pool: StartPool) -> None:
    pool, witness = await start_pool(plan("m"))
    stream = pool.submit(pool.model("m"), [ask("a", LONG, 400)]).streams[0]
    await first_events(stream)
    os.kill(pool.instances[0].pid, signal.SIGKILL)
    await witness.wait_for("m-0", "restarting")
    view = await look(pool)
    assert [span.finish for span in view.spans] == ["lost"]
    assert view.restarts == 1
    assert "signal 9" in view.reason or view.state == "ready"
    await witness.wait_for("m-0", "ready", times=2)
    view = await look(pool)
    assert (view.state, view.restarts, view.sequences) == ("ready", 1, ())
