"""One request to a running server."""

from __future__ import annotations

import json
from typing import Any

from tests.cli.server import RunningServer


def ask(server: RunningServer, path: str = "/v1/completions", **body: Any) -> Any:
    """The answer, or the chunks of a stream."""
    connection = server.connect()
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    assert answer.status == 200, data
    if body.get("stream"):
        events = [line.removeprefix("data: ") for line in data.decode().split("\n\n") if line]
        return [json.loads(event) for event in events[:-1]]
    return json.loads(data)
