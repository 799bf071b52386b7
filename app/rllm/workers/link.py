"""The worker's end of its socket: commands in, messages out, from the one thread that owns the engine."""

from __future__ import annotations

from collections.abc import Iterator

import zmq

from rllm.workers.frames import Command, Message, decode_command, encode


class Link:
    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.set_hwm(0)  # bounded by admission, not by the socket
        self._socket.linger = 1000
        self._socket.connect(endpoint)

    def commands(self, *, wait: bool) -> Iterator[Command]:
        """Everything that has arrived; with ``wait``, sleeps until there is something."""
        if wait:
            yield decode_command(self._socket.recv())
        while True:
            try:
                data = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            yield decode_command(data)

    def send(self, message: Message) -> None:
        self._socket.send(encode(message), zmq.NOBLOCK)

    def close(self) -> None:
        self._socket.close()
        self._context.term()
