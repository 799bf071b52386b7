"""The worker's end of its socket: commands in, messages out, from the one thread that owns the engine."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from rllm.workers.channel import MOST, Cutter, pack
from rllm.workers.frames import Command, Message, Stop, decode_command, encode


class Link:
    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.set_inheritable(False)
        self._cutter = Cutter()

    def commands(self, *, wait: bool) -> Iterator[Command]:
        """Everything that has arrived; with ``wait``, sleeps until there is something."""
        while True:
            try:
                data = self._socket.recv(MOST, 0 if wait else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if not data:  # the other side is gone
                yield Stop()
                return
            for message in self._cutter.cut(data):
                wait = False
                yield decode_command(message)

    def send(self, message: Message) -> None:
        """Waits while the other side reads nothing and the socket is full: some hundred messages."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # nobody is there to hear it
            self._socket.sendall(pack(encode(message)))

    def close(self) -> None:
        self._socket.close()
