"""Requests byte by byte, for what no client library would send."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error


async def ask(port: int, *lines: bytes, body: bytes = b"") -> Answer:
    """Send the lines of a head, and ``body``, on a connection that the server is asked to close."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"\r\n".join((*lines, b"connection: close", b"", b"")) + body)
        async with asyncio.timeout(20):
            answer = await reader.read()
    finally:
        writer.close()
    head, _, content = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in rest)
    return Answer(int(first.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}, content)
