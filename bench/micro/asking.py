"""A batch of streams, all asked at once over the bench's own client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import aiohttp

from rllm_bench import scenarios
from rllm_bench.load.client import Client, Endpoint, Ticket
from rllm_bench.load.prompts import Prompt
from rllm_bench.records.cells import RequestRecord, WorkloadSpec
from rllm_bench.records.vocabulary import Vocabulary


def session() -> aiohttp.ClientSession:
    """A connection for each request, as many at once as are asked for."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(connector=connector, trust_env=False)


def unique(
    vocabulary: Vocabulary, count: int, prompt_tokens: int, output_tokens: int, seed: int
) -> list[Prompt]:
    spec = WorkloadSpec(prompt_tokens=prompt_tokens, output_tokens=output_tokens, seed=seed)
    return [unit[0] for unit in scenarios.workload(spec, vocabulary).units(count)]


async def at_once(
    http: aiohttp.ClientSession, endpoint: Endpoint, prompts: Sequence[Prompt], timeout_s: float = 120.0
) -> list[RequestRecord]:
    """Times count from now."""
    now = time.monotonic()
    client = Client(http, endpoint, now, 0)
    sent = (client.send(prompt, Ticket(index, 0, now), timeout_s) for index, prompt in enumerate(prompts))
    return list(await asyncio.gather(*sent))
