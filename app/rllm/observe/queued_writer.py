"""Writing to a pipe that somebody else reads, or not: the server neither waits for it nor ends with it."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

_MOST_BYTES = 4 * 1024 * 1024
"""Kept for a reader that is slow: some ten thousand lines."""


class QueuedWriter:
    """A text stream over the descriptor of another one, written by a thread from a bounded queue.

    `write` may be called by any thread, never waits and never fails. What finds the queue full, or cannot be
    written, is dropped and counted.
    """

    def __init__(self, stream: TextIO, *, most_bytes: int = _MOST_BYTES) -> None:
        self._stream = stream
        self._fd = stream.fileno()
        self._most_bytes = most_bytes
        self._queue: deque[bytes] = deque()
        self._num_bytes = 0
        self._changed = threading.Condition()
        self._tell: Callable[[int], None] = lambda count: None
        self.num_dropped = 0
        """Calls of `write` so far whose text is lost; of the log, each is a line."""
        threading.Thread(target=self._run, name="log-writer", daemon=True).start()

    def on_dropped(self, tell: Callable[[int], None]) -> None:
        """``tell`` how many were lost, each time that writing works again. Called by the writing thread."""
        self._tell = tell

    def write(self, text: str) -> int:
        data = text.encode(errors="backslashreplace")
        with self._changed:
            if self._num_bytes + len(data) > self._most_bytes:
                self.num_dropped += 1
            else:
                self._queue.append(data)
                self._num_bytes += len(data)
                self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        """Nothing: that is what would wait."""

    def isatty(self) -> bool:
        return self._stream.isatty()

    def close(self, timeout_s: float) -> None:
        """Give what is queued so much time to be written."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._num_bytes and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def _run(self) -> None:
        told = 0
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
                data = self._queue.popleft()
            was_written = self._put(data)
            with self._changed:
                self._num_bytes -= len(data)
                self.num_dropped += not was_written
                self._changed.notify_all()
                lost = self.num_dropped - told
            if was_written and lost:
                told += lost
                self._tell(lost)

    def _put(self, data: bytes) -> bool:
        """False: the descriptor is closed, or nobody will ever read it."""
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:  # whoever shares the pipe has made it so
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()
            except OSError:
                return False
        return True
