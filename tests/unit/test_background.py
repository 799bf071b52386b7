"""A background task that fails is heard of at once."""

from __future__ import annotations

import asyncio
import logging

import pytest

from rllm import background


async def test_a_fault_is_counted_and_logged_while_the_task_is_still_referred_to(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counted: list[None] = []
    background.hear_faults(asyncio.get_running_loop(), lambda: counted.append(None))

    async def fail() -> None:
        raise ValueError("because")

    with caplog.at_level(logging.ERROR, "asyncio"):
        task = background.start(fail(), name="some work")
        await asyncio.wait({task})
        await asyncio.sleep(0)
    assert len(counted) == 1
    assert "task some work failed" in caplog.text


async def test_a_task_that_is_cancelled_or_done_is_no_fault() -> None:
    counted: list[None] = []
    background.hear_faults(asyncio.get_running_loop(), lambda: counted.append(None))
    done = background.start(asyncio.sleep(0), name="done")
    cancelled = background.start(asyncio.sleep(60), name="cancelled")
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait({done, cancelled})
    await asyncio.sleep(0)
    assert not counted
