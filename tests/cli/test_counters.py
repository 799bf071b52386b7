"""Under a real load, with requests that end in every way, the metrics add up and agree with the clients.

Every scrape is parsed by Prometheus' own parser and checked as a whole, also those in the middle
(`tests.cli.scraped`). The clients count for themselves (`tests.cli.callers`).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from tests.cli.callers import Callers
from tests.cli.server import RunningServer, running

LONG = 6000
PATIENT, HASTY = {"authorization": "Bearer patient"}, {"authorization": "Bearer hasty"}
SLOTS, QUEUE = 2, 3


@pytest.fixture
def server(tiny_model: Path, tmp_path: Path) -> Iterator[RunningServer]:
    """Two keys, one of which may ask once a minute; two slots, and three may wait."""
    limits = {"patient": "", "hasty": "requests_per_min = 1"}
    keys = [
        f'[[keys]]\nname = "{name}"\nsha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n{limit}\n'
        for name, limit in limits.items()
    ]
    path = tmp_path / "keys.toml"
    path.write_text("\n".join(keys))
    engine = ("--gguf", tiny_model, "--slots", SLOTS, "--ctx-size", 8192, "--threads", 1)
    limits_ = ("--max-queue-requests", QUEUE, "--keys-file", path, "--open-metrics")
    with running(*map(str, (*engine, *limits_)), "--metrics-compat", "vllm") as started:
        yield started


@asynccontextmanager
async def watched(server: RunningServer) -> AsyncIterator[Callers]:
    """Callers, while somebody scrapes all the time."""
    async with aiohttp.ClientSession(headers=PATIENT, timeout=aiohttp.ClientTimeout(total=60)) as http:
        callers = Callers(server, http)
        watcher = asyncio.create_task(Callers(server, http).watch())
        try:
            yield callers
        finally:
            assert not watcher.done() or watcher.result() is None  # raises what was wrong with a scrape
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher


async def load(callers: Callers) -> None:
    """Finished, cancelled, refused, too late, invalid."""
    await asyncio.gather(*(callers.streamed(5 + number, 20 + number) for number in range(4)))
    await callers.whole(30, 12, n=2)
    await callers.whole(40, 3)
    # both slots taken, the queue full: one more is refused
    holding = [await callers.begin(7, LONG) for _ in range(SLOTS)]
    waiting = [asyncio.create_task(callers.whole(9, 4)) for _ in range(QUEUE)]
    await callers.scrape_until("rllm_queue_depth", QUEUE)
    for _ in range(2):
        assert await callers.whole(9, 4) == 503
    for response in holding:
        callers.leave(response, 7)
    assert await asyncio.gather(*waiting) == [200] * QUEUE
    await callers.quiet()
    # too late, and refused for several reasons
    assert await callers.whole(8, LONG, headers={"x-request-timeout-ms": "100"}) == 504
    assert await callers.whole(8, 2, headers=HASTY) == 200
    assert await callers.whole(8, 2, headers=HASTY) == 429
    assert await callers.refused(prompt="x", max_tokens=-2) == 400
    assert await callers.refused(prompt="x", model="nobody") == 404
    assert await callers.refused(prompt="x", headers={"authorization": "Bearer nobody"}) == 401
    assert await callers.refused("/v1/nothing") == 404


async def test_what_clients_counted_is_what_the_metrics_say(server: RunningServer) -> None:
    async with watched(server) as callers:
        await load(callers)
        metrics = await callers.quiet()
    books = callers.books
    total = metrics.total
    # tokens
    assert total("rllm_generated_tokens_total") - total("rllm_wasted_tokens_total") == books.tokens
    assert total("rllm_prompt_tokens_total") == books.prompt_tokens
    assert total("rllm_wasted_tokens_total") >= SLOTS  # whoever left had a token at least
    # requests in = finished + rejected + cancelled + failed
    statuses = {int(status): count for status, count in metrics.by("rllm_requests_total", "status").items()}
    probes = sum(total("rllm_requests_total", route=route) for route in ("/metrics", "/health"))
    statuses[200] -= probes
    assert statuses == dict(books.statuses)
    assert total("rllm_requests_received_total") == books.statuses.total()
    assert total("rllm_cancellations_total", cause="client_gone") == books.statuses[499] == SLOTS
    assert total("rllm_rejections_total", bound="queue_requests") == books.statuses[503] == 2
    assert total("rllm_rate_limited_total", key="hasty") == books.statuses[429] == 1
    assert total("rllm_rate_limited_total", key="patient") == 0
    assert total("rllm_timeouts_total", limit="deadline_exceeded") == books.statuses[504] == 1
    # sequences
    ended = metrics.by("rllm_sequences_finished_total", "reason")
    assert ended == {"length": books.choices, "cancelled": SLOTS + 1}
    assert total("rllm_sequences_lost_total") == 0


async def test_histograms_count_the_same_things_as_the_counters(server: RunningServer) -> None:
    async with watched(server) as callers:
        await load(callers)
        metrics = await callers.quiet()
    total = metrics.total
    ended = total("rllm_sequences_finished_total")
    for name in ("queue_time_seconds", "prefill_time_seconds", "decode_time_seconds", "output_length_tokens"):
        assert total(f"rllm_{name}_count") == ended
    assert total("rllm_prompt_length_tokens_sum") == total("rllm_prompt_tokens_total")
    assert total("rllm_output_length_tokens_sum") == total("rllm_generated_tokens_total")
    # a token is the first of its sequence, or comes after a gap
    first, gaps = (
        total(f"rllm_{name}_seconds_count") for name in ("time_to_first_token", "inter_token_latency")
    )
    assert first in (ended, ended - 1)  # the one that was too late may have none
    assert first + gaps == total("rllm_generated_tokens_total")
    assert total("rllm_decode_tokens_total") == gaps
    # vLLM's names show the same
    assert total("vllm:generation_tokens_total") == total("rllm_generated_tokens_total")
    assert total("vllm:inter_token_latency_seconds_count") == gaps
    assert total("vllm:request_success_total") == ended


async def test_a_killed_worker_leaves_no_hole_in_the_books(server: RunningServer) -> None:
    """Streams break, what nobody had seen is computed again: each is counted once where it belongs."""
    async with watched(server) as callers:
        broken = [await callers.begin(6, LONG) for _ in range(SLOTS)]
        unseen = asyncio.create_task(callers.whole(11, 5))
        await callers.scrape_until("rllm_sequences_in_flight", SLOTS + 1)
        os.kill(server.workers()[0].pid, signal.SIGKILL)
        for response in broken:
            await callers.hear_the_end(response)
        assert await unseen == 200
        metrics = await callers.quiet()
    books, total = callers.books, metrics.total
    assert total("rllm_sequences_lost_total", outcome="failed") == books.broken == SLOTS
    assert total("rllm_sequences_lost_total", outcome="retried") == 1
    assert total("rllm_sequences_accepted_total") == SLOTS + 2
    assert total("rllm_request_errors_total", code="worker_lost") == SLOTS
    assert total("rllm_worker_restarts_total") == 1
    assert total("rllm_generated_tokens_total") == books.tokens == 5
    assert total("rllm_prompt_tokens_total") == books.prompt_tokens == 11
    assert total("rllm_requests_received_total") == books.statuses.total() == SLOTS + 1
