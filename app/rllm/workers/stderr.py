"""What a worker process writes to its standard error: last words of llama.cpp, CUDA or Python before a crash.

It is text of others, of many lines at a time, and becomes events of the log like everything else.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

_QUIET_S = 0.1
"""What comes within this time of each other is one piece: a traceback, a dump of threads."""
_MOST = 64 * 1024


class StderrReader:
    """The reading end of a pipe, on the event loop; `fd` is the other one, for the process."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        """``tell`` is called with one piece at a time, of one line or many."""
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._text = b""
        self._timer: asyncio.TimerHandle | None = None
        self._read_end, self.fd = os.pipe()
        os.set_blocking(self._read_end, False)
        self._loop.add_reader(self._read_end, self._read)

    def started(self) -> None:
        """The process has its end; ours is not needed any more."""
        os.close(self.fd)
        self.fd = -1

    def close(self) -> None:
        """The process is gone: tell the rest. What children of it still write is lost."""
        if self._read_end >= 0:
            self._read()
        self._close()
        if self.fd >= 0:
            self.started()

    def _read(self) -> None:
        try:
            while data := os.read(self._read_end, _MOST):
                self._text += data
                if len(self._text) >= _MOST:
                    self._flush()
            self._close()
        except BlockingIOError:
            pass
        if self._text and self._timer is None and self._read_end >= 0:
            self._timer = self._loop.call_later(_QUIET_S, self._flush)

    def _close(self) -> None:
        if self._read_end >= 0:
            self._loop.remove_reader(self._read_end)
            os.close(self._read_end)
            self._read_end = -1
        self._flush()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        text, self._text = self._text.decode("utf-8", "replace").strip(), b""
        if text:
            self._tell(text)
