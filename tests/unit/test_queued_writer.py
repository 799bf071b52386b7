"""A log that nobody reads, or nobody can read any more."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from rllm.observe.logs import make_logger
from rllm.observe.queued_writer import QueuedWriter


class Pipe:
    def __init__(self) -> None:
        self.read_end, write_end = os.pipe()
        self.stream = os.fdopen(write_end, "w")

    def read_all(self) -> bytes:
        """Until what was written is closed."""
        self.stream.close()
        data = b""
        while more := os.read(self.read_end, 65536):
            data += more
        return data


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.stream.close()
    os.close(pipe.read_end)


def test_lines_arrive_in_order(pipe: Pipe) -> None:
    writer = QueuedWriter(pipe.stream)
    logger = make_logger("json", "info", writer)
    for number in range(100):
        logger.info("event", number=number)
    writer.close(10)
    lines = pipe.read_all().decode().splitlines()
    assert [f'"number":{number}' in line for number, line in enumerate(lines)] == [True] * 100
    assert writer.num_dropped == 0


def test_what_nobody_reads_is_dropped_counted_and_told(pipe: Pipe) -> None:
    writer = QueuedWriter(pipe.stream, most_bytes=50_000)
    told, was_told = [], threading.Event()

    def tell(count: int) -> None:
        told.append(count)
        was_told.set()

    writer.on_dropped(tell)
    for _ in range(200):  # more than the pipe and the queue hold
        writer.write("x" * 999 + "\n")
    assert writer.num_dropped >= 50
    writer.close(0.01)  # does not wait for ever
    read = b""
    while not was_told.is_set():
        read += os.read(pipe.read_end, 65536)
    writer.close(10)
    read += pipe.read_all()
    assert sum(told) == writer.num_dropped == 200 - read.count(b"\n")


def test_a_closed_pipe_is_no_error(pipe: Pipe) -> None:
    os.close(pipe.read_end)
    writer = QueuedWriter(pipe.stream)
    for _ in range(10):
        writer.write("lost\n")
    writer.close(10)
    assert writer.num_dropped == 10
    pipe.read_end = os.dup(0)


def test_a_pipe_that_somebody_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.stream.fileno(), False)
    writer = QueuedWriter(pipe.stream)
    for _ in range(200):
        writer.write("x" * 999 + "\n")
    read = b""
    while read.count(b"\n") < 200:
        read += os.read(pipe.read_end, 65536)
    assert writer.num_dropped == 0
