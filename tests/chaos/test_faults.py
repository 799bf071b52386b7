"""Each fault of the riddle shows in the metrics by which the runbook tells them apart, and is gone with its cause."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.chaos.faults import Fault, Scene, Sizes, kv_full, running, slow_prefill, slow_worker
from tests.chaos.mystery import OPTIONS, workers
from tests.chaos.servers import rllm

SIZES = Sizes()


@asynccontextmanager
async def _scene(model: Path) -> AsyncIterator[Scene]:
    async with aiohttp.ClientSession() as http, rllm(http, "--gguf", model, *OPTIONS) as server:
        yield Scene(http, server, random.Random(5), SIZES)


async def _until_seen(scene: Scene, fault: Fault, pid: int, seen: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(90), running(fault(scene, pid)):
        while not await seen():
            await asyncio.sleep(0.2)


async def test_long_prompts_show_as_prefill(tiny_model: Path) -> None:
    async with _scene(tiny_model) as scene:

        async def seen() -> bool:
            prefill = await scene.server.metric(scene.http, "rllm_prefill_tokens_total")
            decode = await scene.server.metric(scene.http, "rllm_decode_tokens_total")
            return prefill > 10_000 and prefill > 100 * decode

        await _until_seen(scene, slow_prefill, 0, seen)
        assert await scene.server.metric(scene.http, "rllm_preemptions_total") == 0
        assert await scene.server.wait_idle(scene.http) >= 0


async def test_long_answers_show_as_preemptions(tiny_model: Path) -> None:
    async with _scene(tiny_model) as scene:

        async def seen() -> bool:
            return await scene.server.metric(scene.http, "rllm_preemptions_total") > 3

        await _until_seen(scene, kv_full, 0, seen)
        assert await scene.server.wait_idle(scene.http) >= 0


async def test_a_slow_worker_shows_beside_its_fellow(tiny_model: Path) -> None:
    async with _scene(tiny_model) as scene:
        pids = workers(scene.server)

        async def mean(instance: str) -> float:
            at = {"kind": "decode", "instance": instance}
            total = await scene.server.metric(scene.http, "rllm_step_seconds_sum", **at)
            count = await scene.server.metric(scene.http, "rllm_step_seconds_count", **at)
            return total / count if count > 20 else 0.0

        async def seen() -> bool:
            slow, fast = await mean("tiny-1"), await mean("tiny-0")
            return fast > 0 and slow > 3 * fast

        async with running(scene.crowd(4, (20, 100))):
            await _until_seen(scene, slow_worker, pids["tiny-1"], seen)
        assert await scene.server.wait_idle(scene.http) >= 0
        assert workers(scene.server) == pids  # slow, not stuck: the watchdog has not replaced it
