"""Clients of a running server, each in a thread of its own, until they are told to stop."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

Body = dict[str, Any]


def _send(port: int, body: Body, stop: threading.Event) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"}
        )
        response = connection.getresponse()
        while not stop.is_set() and response.readline():
            pass
    finally:
        connection.close()


@contextlib.contextmanager
def traffic(port: int, num_clients: int, make_body: Callable[[random.Random], Body]) -> Iterator[None]:
    """Each client sends one request after the other. Leaving cancels what still runs."""
    stop = threading.Event()

    def run(seed: int) -> None:
        rng = random.Random(seed)
        while not stop.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                _send(port, make_body(rng), stop)
            stop.wait(rng.random() / 4)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(num_clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
