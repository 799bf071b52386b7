"""How many connections there may be, so that workers, health and everybody else always get a descriptor.

Beyond the limit the connection that has been idle longest makes room, as in nginx: nobody waits for it.
Where all are busy, a further one is heard all the same, but only probes get more than a 503 (see `Crowd` in
`rllm.api.http.middleware`).
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

_ENOUGH = 65536
_OWN = 64
"""Descriptors kept for the server itself: files, libraries, the children of its own."""
_PER_WORKER = 12
"""A worker's pipes and socket, twice: the next one is started before the last one's are all closed."""


class Connection(Protocol):
    def cut(self) -> None:
        """End it at once."""


@dataclass(frozen=True, slots=True)
class Room:
    connections: int
    """Of clients, at the same time."""
    burst: int
    """That may come in one turn of the event loop, before any other is closed for them."""


def room_for(descriptors: int, num_workers: int, most: int = 0) -> Room:
    """For clients, of so many free ``descriptors``. ``most``: the operator's own limit; 0: none."""
    left = max(16, descriptors - _OWN - _PER_WORKER * num_workers)
    burst = min(1024, max(8, left // 4))
    return Room(min(most or left, left - burst), burst)


def free_descriptors() -> int:
    """What the process may still open, after its limit was raised as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit - len(list(Path("/proc/self/fd").iterdir()))


class Connections:
    """Accounts for the connections of one server. Lives on the event loop."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._count = 0
        self._idle: dict[Connection, None] = {}
        """Nobody works for them; the one that has been so longest comes first."""

    def entered(self, connection: Connection) -> None:
        """It counts, and where there are too many, one goes."""
        self._count += 1
        excess = self._count - self._room.connections
        if excess > 0 and self._idle:
            self._cut(next(iter(self._idle)))
        elif excess > self._room.burst:
            connection.cut()
            return
        self._idle[connection] = None

    def left(self, connection: Connection) -> None:
        self._count -= 1
        self._idle.pop(connection, None)

    def is_busy(self, connection: Connection) -> None:
        self._idle.pop(connection, None)

    def is_idle(self, connection: Connection) -> None:
        self._idle[connection] = None

    @property
    def are_too_many(self) -> bool:
        return self._count > self._room.connections

    def _cut(self, connection: Connection) -> None:
        del self._idle[connection]
        connection.cut()
