"""One plain record per HTTP request, for whoever counts or logs them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

PROBES = frozenset(
    [
        "/health",
        "/health/live",
        "/health/ready",
        "/ping",
        "/load",
        "/slots",
        "/metrics",
        "/v1/rllm/state",
        "/ui",
        "/ui/{name}",
    ]
)
"""Routes of those who watch: many requests, none of which is work."""


@dataclass(slots=True)
class RequestRecord:
    """Filled while the request runs, handed to the observer exactly once, not touched afterwards.

    Holds no prompt, no answer and no key. Times are seconds since the request arrived.
    """

    request_id: str
    method: str
    path: str
    route: str = "unmatched"
    """The route's pattern: a label with few values, unlike ``path``."""
    trace_id: str | None = None
    """Where the request is traced: under which id."""
    client_key: str | None = None
    """Name of the key that was used."""
    status: int = 0
    """As sent; 499 where the client went away or was too slow, whatever had been sent before."""
    error_code: str | None = None
    """Also set when an event stream ended with an error after its 200."""
    error_param: str | None = None
    """The field of the request that was at fault."""
    model: str | None = None
    response_id: str | None = None
    streamed: bool = False
    num_choices: int = 0
    finish_reasons: tuple[str, ...] = ()
    prompt_tokens: int = 0
    """Of what was accepted; each prompt once, however many choices it has."""
    completion_tokens: int = 0
    cached_tokens: int = 0
    prepare_s: float | None = None
    """Until the prompt was rendered, tokenized and accepted by the service."""
    ttft_s: float | None = None
    """Until the first token of any choice arrived from its worker."""
    duration_s: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()
    """Of the answer, beside those that every answer has."""
    started: float = field(default_factory=time.monotonic, repr=False)

    def elapsed_s(self) -> float:
        return time.monotonic() - self.started


Headers = Sequence[tuple[bytes, bytes]]

Starter = Callable[[RequestRecord, Headers], None]
"""Called when a request has arrived, with its headers; what it adds to ``record.headers`` is sent back."""


def ignore_start(record: RequestRecord, headers: Headers) -> None:
    """The one that does nothing."""


Observer = Callable[[RequestRecord], None]
"""Called on the event loop; must not block."""


def ignore(record: RequestRecord) -> None:
    """The observer that watches nothing."""
