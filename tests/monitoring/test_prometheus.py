"""A real Prometheus, by the documentation's own configuration, watches a real server."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import aiohttp
import pytest

from tests.chaos.asking import ask, body, prompt
from tests.chaos.servers import ServerProcess, rllm
from tests.monitoring.expressions import metrics_in, panels
from tests.monitoring.tools import Prometheus, needs_prometheus, prometheus

pytestmark = needs_prometheus
OPTIONS = ("--slots", 4, "--ctx-size", 256, "--threads", 1, "--replicas", 2)


async def _evaluated(watcher: Prometheus) -> None:
    """Until the target was scraped and every rule looked at since."""
    async with asyncio.timeout(60):
        while True:
            targets = [target["health"] for target in await watcher.targets()]  # none in the first seconds
            if targets == ["up"] and all(rule["health"] != "unknown" for rule in await watcher.rules()):
                return
            await asyncio.sleep(0.2)


async def _worked(http: aiohttp.ClientSession, server: ServerProcess, watcher: Prometheus) -> None:
    """Until there are rates of everything that a request counts: two scrapes with work between them."""
    async with asyncio.timeout(60):
        while not await watcher.query('rate(rllm_requests_total{route="/v1/chat/completions"}[1m]) > 0'):
            answers = [ask(http, server.url, body(prompt(i), 16)) for i in range(8)]
            assert all(answer.is_whole for answer in await asyncio.gather(*answers))
            await asyncio.sleep(0.2)


def _filled_in(query: str) -> str:
    """As Grafana would ask with every variable on All."""
    for name in ("$job", "$server", "$model", "$worker"):
        query = query.replace(name, ".*")
    return query.replace("$__rate_interval", "1m")


async def test_every_rule_and_every_panel_can_be_evaluated(tiny_model: Path, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as http, rllm(http, "--gguf", tiny_model, *OPTIONS) as server:
        async with prometheus(http, f"127.0.0.1:{server.port}", tmp_path) as watcher:
            await _evaluated(watcher)
            await _worked(http, server, watcher)
            rules = await watcher.rules()
            assert [(r["name"], r.get("lastError")) for r in rules if r["health"] != "ok"] == []
            assert len([r for r in rules if r["type"] == "alerting"]) >= 20
            there = {labels["__name__"] for labels, _ in await watcher.query('{__name__=~"rllm_.+"}')}
            for title, queries in panels().items():
                for query in map(_filled_in, queries):
                    assert await watcher.query(query) or not metrics_in([query]) <= there, (title, query)
            workers = {labels["exported_instance"] for labels, _ in await watcher.query("rllm_slots")}
            assert workers == {"tiny-0", "tiny-1"}


async def _kill(http: aiohttp.ClientSession, server: ServerProcess, pids: set[int]) -> None:
    """One worker that is not in ``pids`` yet, once both are ready."""
    async with asyncio.timeout(60):
        while True:
            states = (await server.instances(http)).values()
            fresh = set(server.worker_pids) - pids
            if set(states) == {"ready"} and fresh:
                break
            await asyncio.sleep(0.05)
    victim = max(fresh)
    pids.add(victim)
    os.kill(victim, signal.SIGKILL)


@pytest.mark.slow
async def test_workers_that_are_killed_again_and_again_raise_the_alert(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Chaos for the whole chain: signal, counter, scrape, rule, alert."""
    pids: set[int] = set()
    async with aiohttp.ClientSession() as http, rllm(http, "--gguf", tiny_model, *OPTIONS) as server:
        async with prometheus(http, f"127.0.0.1:{server.port}", tmp_path) as watcher:
            await _evaluated(watcher)
            assert await watcher.firing() == set()
            async with asyncio.timeout(90):
                while "RllmWorkerRestarts" not in await watcher.firing():
                    if len(pids) < 6:
                        await _kill(http, server, pids)
                    await asyncio.sleep(0.2)
