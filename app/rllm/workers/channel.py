"""A stream of bytes as messages, each after its length, and the API's end of the socket to one worker.

A pair of connected sockets and nothing between them: a message costs one system call on either side and wakes
nobody but its reader. What a worker sent before it ended can be read after its end, however it ended.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

MOST = 256 * 1024
"""Bytes read at once."""
_HEAD = 4


def pack(message: bytes) -> bytes:
    return len(message).to_bytes(_HEAD, "little") + message


class Cutter:
    """Cuts what `pack` has joined, wherever the pieces begin and end."""

    def __init__(self) -> None:
        self._rest = bytearray()
        """Begins with the head of a message that is not complete."""

    def cut(self, data: bytes) -> list[bytes]:
        """The messages that are complete now."""
        if self._rest:
            self._rest += data
            if len(self._rest) < _HEAD + int.from_bytes(self._rest[:_HEAD], "little"):
                return []
            data = bytes(self._rest)
            self._rest.clear()
        messages, begin = [], 0
        while (body := begin + _HEAD) <= len(data):
            end = body + int.from_bytes(data[begin:body], "little")
            if end > len(data):
                break
            messages.append(data[body:end])
            begin = end
        self._rest += data[begin:]
        return messages


class Channel:
    """Lives on the event loop. ``on_message`` is called for every message, in order, from `listen` on."""

    def __init__(self, on_message: Callable[[bytes], None]) -> None:
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self._socket, self._theirs = socket.socketpair()
        self._socket.setblocking(False)
        self._cutter = Cutter()
        self._unsent = bytearray()

    @property
    def fd(self) -> int:
        """The other end, for the process that is started with it."""
        return self._theirs.fileno()

    def started(self) -> None:
        """The process has its end; ours of it is not needed any more."""
        self._theirs.close()

    def listen(self) -> None:
        self._loop.add_reader(self._socket, self._read)

    def send(self, message: bytes) -> None:
        """Never blocks: what the socket does not take at once waits here. To nobody it is lost."""
        if self._socket.fileno() >= 0:
            self._unsent += pack(message)
            self._flush()

    def finish(self) -> None:
        """The process is gone: deliver what it left behind."""
        self._loop.remove_reader(self._socket)
        while self._read():
            pass

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
        self._socket.close()
        self._theirs.close()

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._flush)
            return
        except OSError:  # its process has ended
            self._unsent.clear()
        self._loop.remove_writer(self._socket)

    def _read(self) -> bool:
        """Take what has come; False when there is nothing, now or ever again."""
        try:
            data = self._socket.recv(MOST)
        except BlockingIOError:
            return False
        except OSError:  # reset: it ended before it had read everything
            data = b""
        if not data:
            self._loop.remove_reader(self._socket)
            return False
        for message in self._cutter.cut(data):
            self._on_message(message)
        return True
