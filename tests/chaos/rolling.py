"""A deploy: two servers behind a load balancer, each replaced by a new process while requests flow."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.chaos import servers
from tests.chaos.asking import Answer, ask, body, prompt
from tests.chaos.nginx import nginx
from tests.chaos.proxy import Proxy
from tests.chaos.result import Result
from tests.chaos.servers import ServerProcess, free_port, rllm


@dataclass(frozen=True)
class RollingPlan:
    model: Path
    clients: int = 8
    restarts: int = 4
    max_tokens: int = 48
    threads: int = 1
    """Of each worker: there are several, and threads that wait for each other must not outnumber the cores."""
    slots: int = 8
    ctx: int = 512
    drain_delay_s: float = 1.0
    drain_timeout_s: float = 30.0
    pause_s: float = 2.0

    @property
    def options(self) -> tuple[object, ...]:
        return (
            *("--gguf", self.model, "--threads", self.threads, "--slots", self.slots),
            *("--ctx-size", self.ctx, "--drain-delay-s", self.drain_delay_s),
            *("--drain-timeout-s", self.drain_timeout_s),
        )


@dataclass(frozen=True)
class Restart:
    in_flight: float
    """At SIGTERM."""
    exit_s: float
    status: int


async def run(plan: RollingPlan) -> Result:
    """The new server is there before the old one goes, at another port; the proxy asks who is ready."""
    result = Result(
        "rolling",
        f"Rolling restart under load, {plan.restarts} servers replaced behind a proxy",
        f"two rllm-serve --gguf {plan.model.name} --drain-delay-s {plan.drain_delay_s:g} behind a small proxy that "
        f"asks /health/ready every 0.1 s and never retries; {plan.clients} clients in a closed loop, half of them "
        "streaming; each new server is ready before an old one gets SIGTERM",
    )
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        proxy = await stack.enter_async_context(Proxy())

        async def start() -> ServerProcess:
            server = await stack.enter_async_context(rllm(http, *plan.options))
            proxy.upstreams.add(server.url)
            while server.url not in proxy.ready:
                await asyncio.sleep(0.05)
            return server

        running = [await start(), await start()]

        async def replace() -> Restart:
            running.append(await start())
            old = running.pop(0)
            restart = await _end(http, old)
            proxy.upstreams.discard(old.url)
            return restart

        await _deploy(result, plan, http, proxy.url, replace)
    return result


async def run_nginx(plan: RollingPlan, binary: Path) -> Result:
    """Each server in turn is stopped and started again at its port, as an operator would do it."""
    result = Result(
        "nginx",
        f"Rolling restart under load, {plan.restarts} servers restarted behind nginx",
        f"two rllm-serve --gguf {plan.model.name} --drain-delay-s {plan.drain_delay_s:g} behind nginx with "
        f"docs/nginx.conf; {plan.clients} clients in a closed loop, half of them streaming; a server gets SIGTERM, "
        "ends, starts at the same port, and when it is ready the other one is next",
    )
    ports = [free_port(), free_port()]
    logs = Path(os.environ.get(servers.LOGS, tempfile.gettempdir()))
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        running = [await stack.enter_async_context(rllm(http, *plan.options, port=port)) for port in ports]
        url = await stack.enter_async_context(nginx(binary, ports, logs))

        async def replace() -> Restart:
            old = running.pop(0)
            restart = await _end(http, old)
            running.append(await stack.enter_async_context(rllm(http, *plan.options, port=old.port)))
            return restart

        await _deploy(result, plan, http, url, replace)
    return result


async def _end(http: aiohttp.ClientSession, server: ServerProcess) -> Restart:
    in_flight = await _under_way(http, server)
    began = time.monotonic()
    status = await server.terminate()
    return Restart(in_flight, time.monotonic() - began, status)


async def _under_way(http: aiohttp.ClientSession, server: ServerProcess) -> float:
    """Sequences in flight, at a moment when there are some if one comes: a quick server is idle in between."""
    in_flight = 0.0
    for _ in range(200):
        in_flight = await server.metric(http, "rllm_sequences_in_flight")
        if in_flight > 0:
            break
        await asyncio.sleep(0.01)
    return in_flight


async def _deploy(
    result: Result,
    plan: RollingPlan,
    http: aiohttp.ClientSession,
    url: str,
    replace: Callable[[], Awaitable[Restart]],
) -> None:
    answers: list[Answer] = []
    stop = asyncio.Event()
    load = asyncio.create_task(_load(http, url, plan, stop, answers))
    restarts = []
    for _ in range(plan.restarts):
        await asyncio.sleep(plan.pause_s)
        restarts.append(await replace())
    await asyncio.sleep(plan.pause_s)
    stop.set()
    await load
    bad = [answer for answer in answers if not answer.is_whole or answer.num_tokens != plan.max_tokens]
    ends = Counter(answer.failure or answer.code or str(answer.status) for answer in bad)
    how = "".join(f"; {count} x {end}" for end, count in ends.items())
    result.check("zero failed requests", not bad, f"{len(bad)} of {len(answers)}{how}")
    result.check(
        "each old server exits with 0",
        not any(restart.status for restart in restarts),
        f"{[restart.status for restart in restarts]}",
    )
    result.check(
        "requests were in flight when SIGTERM came",
        any(restart.in_flight > 0 for restart in restarts),
        f"{[round(restart.in_flight) for restart in restarts]}",
    )
    rows: list[list[object]] = [
        [number, restart.in_flight, round(restart.exit_s, 2), restart.status]
        for number, restart in enumerate(restarts, start=1)
    ]
    result.tables.append(("Restarts", ["restart", "in flight at SIGTERM", "seconds to exit", "status"], rows))
    result.raw = {"answers": [answer.row() for answer in answers]}


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
