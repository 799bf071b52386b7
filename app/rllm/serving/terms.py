"""The conditions that come with a request, and the headers that go with its answer."""

from __future__ import annotations

from dataclasses import dataclass

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """What the caller demands of an answer."""

    key: str | None = None
    """The name of the API key, whose limits and priority apply."""
    timeout_s: float | None = None
    """The whole answer is worthless after so long; also the most that a first token may take."""
    ttft_s: float | None = None
    """The request is refused if its first token would probably take longer. Once accepted it ends nothing."""
    streaming: bool = True
    """False: the client sees nothing before the end, so the request may start over until then."""


ANYBODY = Terms()
