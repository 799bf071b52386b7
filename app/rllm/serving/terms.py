"""What comes with a request beside its tokens, and what the caller is told beside the answer."""

from __future__ import annotations

from dataclasses import dataclass

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """The caller's conditions."""

    key: str | None = None
    """Name of the API key, whose limits and priority apply."""
    timeout_s: float | None = None
    """The whole answer is worthless after so long; also the most that a first token may take."""
    ttft_s: float | None = None
    """Refuse at once when the first token would probably take longer. Once accepted it ends nothing."""
    streaming: bool = True
    """False: the client sees nothing before the end, so the request may start over until then."""


ANYBODY = Terms()
