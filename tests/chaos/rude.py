"""Clients that leave at random moments, and clients that hardly read."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from tests.chaos.asking import ask, body, prompt
from tests.chaos.result import Result
from tests.chaos.servers import ServerProcess, rllm


@dataclass(frozen=True)
class RudePlan:
    model: Path
    leavers: int = 1000
    at_a_time: int = 50
    readers: int = 50
    slow_timeout_s: float = 5.0
    threads: int = 0
    """0: as many as the server chooses."""
    slots: int = 16
    ctx: int = 2048
    patience_s: float = 400.0
    """Until the last slow reader must have been cut. They take turns: until one gets a slot there is nothing to read."""
    seed: int = 7


async def run(plan: RudePlan) -> Result:
    result = Result(
        "rude",
        f"{plan.leavers} clients that disconnect at random moments, {plan.readers} that read one byte a second",
        f"rllm-serve --gguf {plan.model.name} --slots {plan.slots} --ctx-size {plan.ctx} "
        f"--slow-client-timeout-s {plan.slow_timeout_s:g}, over raw sockets",
    )
    async with aiohttp.ClientSession() as http:
        options = (
            "--gguf",
            plan.model,
            "--threads",
            plan.threads,
            "--slots",
            plan.slots,
            "--ctx-size",
            plan.ctx,
        )
        more = ("--slow-client-timeout-s", plan.slow_timeout_s, "--max-queue-requests", 2000)
        async with rllm(http, *options, *more) as server:
            for number in range(2 * plan.slots):
                await ask(http, server.url, body(prompt(number), 64))
            fresh = server.footprint()
            # Python's heap keeps the size that the first wave of slow readers gave it. A leak would grow on.
            await _read_slowly(plan, server)
            await server.wait_idle(http)
            await asyncio.sleep(2)
            before = server.footprint()
            await _leave(plan, server)
            idle_s = await server.wait_idle(http)
            await asyncio.sleep(2)
            between = server.footprint()
            cut, longest = await _read_slowly(plan, server)
            named = (
                await server.metric(http, "rllm_request_errors_total", code="client_too_slow") - plan.readers
            )
            slow_idle_s = await server.wait_idle(http)
            await asyncio.sleep(2)
            after = server.footprint()
            last = await ask(http, server.url, body("Still there?", 16))
    result.check(
        "slots are back after the disconnects",
        idle_s >= 0,
        f"nothing in flight {idle_s:.1f} s after the last",
    )
    result.check(
        f"clients that hardly read are cut after {plan.slow_timeout_s:g} s",
        cut == named == plan.readers,
        f"{cut} of {plan.readers} cut, {named:.0f} of them as too slow, the last {longest:.1f} s after its request",
    )
    result.check(
        "slots are back after the slow readers", slow_idle_s >= 0, f"{slow_idle_s:.1f} s after the last cut"
    )
    for what, now in (("disconnects", between), ("slow readers", after)):
        growth = now.rss_mib - before.rss_mib
        result.check(f"memory is back to the start after the {what}", growth < 24, f"{growth:+.1f} MiB")
        fds = now.num_fds - before.num_fds
        result.check(f"file descriptors are back after the {what}", fds <= 2, f"{fds:+d}")
    result.check("the server answers", last.is_whole, f"status {last.status}")
    result.notes.append(
        f"The start is after a first wave of {plan.readers} slow readers, which leaves Python's heap "
        f"{before.rss_mib - fresh.rss_mib:.0f} MiB larger than a fresh server's: their unread answers lay there, "
        "and arenas with a few living objects are not given back. Further waves find this room again."
    )
    result.raw = {
        "fresh": vars(fresh),
        "before": vars(before),
        "between": vars(between),
        "after": vars(after),
    }
    return result


def _request(data: dict[str, object], path: str) -> bytes:
    payload = orjson.dumps(data)
    return (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(payload)}\r\n\r\n"
    ).encode() + payload


async def _leave(plan: RudePlan, server: ServerProcess) -> None:
    rng = random.Random(plan.seed)
    gate = asyncio.Semaphore(plan.at_a_time)

    async def one(number: int) -> None:
        async with gate:
            stream = rng.random() < 0.7
            data = _request(body(prompt(number), 200, stream=stream), "/v1/chat/completions")
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            if rng.random() < 0.2:  # in the middle of the request
                data = data[: rng.randrange(len(data))]
            writer.write(data)
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(rng.random() ** 2 * 3):
                    while await reader.read(256):
                        pass
            if rng.random() < 0.5:  # a reset instead of a farewell
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    await asyncio.gather(*(one(number) for number in range(plan.leavers)))


def _is_cut(sock: socket.socket) -> bool:
    """A reset arrived. What was received before it could still be read, at a byte a second for an hour."""
    state: int = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state == 7  # TCP_CLOSE


async def _read_slowly(plan: RudePlan, server: ServerProcess) -> tuple[int, float]:
    """Answers with log probabilities of 20 rivals, so that buffers fill; how many were cut, and the latest cut."""
    fields = {"logprobs": 20, "prompt": "Once upon a time", "ignore_eos": True, "stream": True}
    data = _request({**fields, "max_tokens": plan.ctx - 100}, "/v1/completions")
    loop = asyncio.get_running_loop()

    async def one() -> float | None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.setblocking(False)
        began = time.monotonic()
        try:
            await loop.sock_connect(sock, ("127.0.0.1", server.port))
            await loop.sock_sendall(sock, data)
            async with asyncio.timeout(plan.patience_s):
                while not _is_cut(sock):
                    await loop.sock_recv(sock, 1)
                    await asyncio.sleep(1)
            return time.monotonic() - began
        except ConnectionError:
            return time.monotonic() - began
        except TimeoutError:
            return None
        finally:
            sock.close()

    times = await asyncio.gather(*(one() for _ in range(plan.readers)))
    cuts = [each for each in times if each is not None]
    return len(cuts), max(cuts, default=0.0)
