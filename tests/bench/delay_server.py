"""A completion server that waits exactly as long as it is told: what the bench is measured with.

``python delay_server.py PORT LOG '{"ttft_s": 0.1, "tpot_s": 0.02}'``. Chunk k of an answer is due at
arrival + ttft + k * tpot. During a stall nothing is sent. Each answer adds a line to LOG with the
monotonic times at which it really arrived, sent its first and sent its last chunk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True)
class Behaviour:
    ttft_s: float = 0.1
    tpot_s: float = 0.02
    spread_s: float = 0.0
    """The n-th request waits up to this much longer, so that streams do not march in step: clients would
    otherwise all send at the same instant, which no client can."""
    tokens_per_chunk: int = 1
    stall_after_s: float | None = None
    """Counted from the arrival of the first request that is not for warming up."""
    stall_s: float = 0.0
    send_usage: bool = True
    status: int = 200
    share_port: bool = False
    """Several of these processes listen on one port."""


class DelayServer:
    def __init__(self, behaviour: Behaviour, log: TextIO) -> None:
        self._behaviour = behaviour
        self._log = log
        self._began: float | None = None
        self._served = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST"):
                await self._complete(head, reader, writer)
            else:
                _reply(writer, 200, {"object": "list", "data": [{"id": "delay"}]})
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _complete(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        body = json.loads(await reader.readexactly(length))
        arrived = time.monotonic()
        if self._behaviour.status != 200:
            _reply(writer, self._behaviour.status, {"error": {"message": "refused"}})
            return
        self._began = arrived if self._began is None else self._began
        self._served += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        sent = await self._stream(body["max_tokens"], arrived, writer)
        usage = {"prompt_tokens": len(body.get("prompt", "x")), "completion_tokens": body["max_tokens"]}
        last: dict[str, Any] = {"choices": []}
        if self._behaviour.send_usage:
            last["usage"] = usage
        writer.write(b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n")
        self._log.write(json.dumps({"arrived": arrived, "first": sent[0], "last": sent[-1]}) + "\n")
        self._log.flush()

    async def _stream(self, tokens: int, arrived: float, writer: asyncio.StreamWriter) -> list[float]:
        """Due times are absolute, so that lateness does not add up."""
        sent = []
        step = self._behaviour.tokens_per_chunk
        first = arrived + self._behaviour.ttft_s + self._behaviour.spread_s * (self._served * 0.618 % 1)
        for done in range(0, tokens, step):
            due = first + done * self._behaviour.tpot_s
            await _until(self._after_stall(due))
            count = min(step, tokens - done)
            finish = "length" if done + count == tokens else None
            chunk = {"choices": [{"text": " x" * count, "finish_reason": finish}]}
            sent.append(time.monotonic())
            writer.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        return sent

    def _after_stall(self, due: float) -> float:
        if self._behaviour.stall_after_s is None or self._began is None:
            return due
        begin = self._began + self._behaviour.stall_after_s
        end = begin + self._behaviour.stall_s
        return end if begin <= due < end else due


async def _until(due: float) -> None:
    while (left := due - time.monotonic()) > 0:  # noqa: ASYNC110  # time is what is waited for
        await asyncio.sleep(left)


def _reply(writer: asyncio.StreamWriter, status: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + data)


async def serve(port: int, log: TextIO, behaviour: Behaviour) -> None:
    server = await asyncio.start_server(
        DelayServer(behaviour, log).handle,
        "127.0.0.1",
        port,
        backlog=1024,
        reuse_port=behaviour.share_port or None,
    )
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    with Path(sys.argv[2]).open("a") as sink:
        asyncio.run(serve(int(sys.argv[1]), sink, Behaviour(**json.loads(sys.argv[3]))))
