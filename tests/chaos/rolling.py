"""A deploy: two servers behind a proxy, each replaced by a new process while requests flow."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.chaos.asking import Answer, ask, body, prompt
from tests.chaos.proxy import Proxy
from tests.chaos.result import Result
from tests.chaos.servers import ServerProcess, rllm


@dataclass(frozen=True)
class RollingPlan:
    model: Path
    clients: int = 8
    restarts: int = 4
    max_tokens: int = 48
    threads: int = 0
    """0: as many as the server chooses."""
    slots: int = 8
    ctx: int = 512
    drain_delay_s: float = 1.0
    drain_timeout_s: float = 30.0
    pause_s: float = 2.0


async def run(plan: RollingPlan) -> Result:
    result = Result(
        "rolling",
        f"Rolling restart under load, {plan.restarts} servers replaced",
        f"two rllm-serve --gguf {plan.model.name} --drain-delay-s {plan.drain_delay_s:g} behind a small proxy that "
        f"asks /health/ready every 0.1 s and never retries; {plan.clients} clients in a closed loop, half of them "
        "streaming",
    )
    answers: list[Answer] = []
    statuses: list[int] = []
    rows: list[list[object]] = []
    options = ("--gguf", plan.model, "--threads", plan.threads, "--slots", plan.slots, "--ctx-size", plan.ctx)
    drain = ("--drain-delay-s", plan.drain_delay_s, "--drain-timeout-s", plan.drain_timeout_s)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        proxy = await stack.enter_async_context(Proxy())

        async def start() -> ServerProcess:
            server = await stack.enter_async_context(rllm(http, *options, *drain))
            proxy.upstreams.add(server.url)
            while server.url not in proxy.ready:
                await asyncio.sleep(0.05)
            return server

        servers = [await start(), await start()]
        stop = asyncio.Event()
        load = asyncio.create_task(_load(http, proxy.url, plan, stop, answers))
        for number in range(plan.restarts):
            await asyncio.sleep(plan.pause_s)
            servers.append(await start())
            old = servers.pop(0)
            in_flight = await old.metric(http, "rllm_sequences_in_flight")
            began = time.monotonic()
            statuses.append(await old.terminate())
            rows.append([number + 1, in_flight, round(time.monotonic() - began, 2), statuses[-1]])
            proxy.upstreams.discard(old.url)
        await asyncio.sleep(plan.pause_s)
        stop.set()
        await load
    bad = [answer for answer in answers if not answer.is_whole or answer.num_tokens != plan.max_tokens]
    result.check("zero failed requests", not bad, f"{len(bad)} of {len(answers)}")
    result.check("each old server exits with 0", not any(statuses), f"{statuses}")
    result.tables.append(("Restarts", ["restart", "in flight at SIGTERM", "seconds to exit", "status"], rows))
    result.raw = {"answers": [answer.row() for answer in answers]}
    return result


async def _load(
    http: aiohttp.ClientSession, url: str, plan: RollingPlan, stop: asyncio.Event, answers: list[Answer]
) -> None:
    async def client(number: int) -> None:
        count = 0
        while not stop.is_set():
            data = body(prompt(number * 1000 + count, 12), plan.max_tokens, stream=number % 2 == 0)
            answers.append(await ask(http, url, data))
            count += 1

    await asyncio.gather(*(client(number) for number in range(plan.clients)))
