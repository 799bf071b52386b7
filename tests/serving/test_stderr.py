"""What a worker's process writes to its standard error arrives as pieces, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import os

from rllm.workers.stderr import StderrReader


async def test_lines_that_come_together_are_one_piece_and_the_rest_comes_at_the_end() -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    reader = StderrReader(told.put_nowait)
    os.write(reader.fd, b"Traceback (most recent call last):\n  File\nValueError: no\n")
    async with asyncio.timeout(10):
        assert await told.get() == "Traceback (most recent call last):\n  File\nValueError: no"
    os.write(reader.fd, b"GGML_ASSERT(false) failed\n")
    reader.started()
    reader.close()
    assert told.get_nowait() == "GGML_ASSERT(false) failed"
    reader.close()
    assert told.empty()


async def test_the_process_may_close_its_end_first() -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    reader = StderrReader(told.put_nowait)
    os.write(reader.fd, b"last words")
    reader.started()
    async with asyncio.timeout(10):
        assert await told.get() == "last words"
    reader.close()
    assert told.empty()


async def test_much_text_does_not_pile_up() -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    reader = StderrReader(told.put_nowait)
    for _ in range(4):
        await asyncio.to_thread(os.write, reader.fd, b"x" * 50_000)
    reader.started()
    async with asyncio.timeout(10):
        received = 0
        while received < 200_000:
            received += len(await told.get())
    reader.close()
