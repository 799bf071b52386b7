"""One sequence between its acceptance and its last event, whichever workers compute it on the way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from rllm.engine.types import EngineRequest
from rllm.serving.limits import Permit
from rllm.serving.prefixes import BlockKeys
from rllm.serving.stream import Stream
from rllm.serving.timeouts import Times

MAX_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a sequence will probably take, from what was known when it was offered."""

    uncached_tokens: int
    """Prompt tokens to compute."""
    output_tokens: int
    """Tokens to generate."""
    ttft_s: float
    """Seconds from acceptance to the first token."""


@dataclass(slots=True, eq=False)
class Pending:
    request: EngineRequest
    prefix: BlockKeys
    stream: Stream
    times: Times
    estimate: Estimate
    """It was made by the instance that has the request now or had it last."""
    permit: Permit | None = None
    attempts: int = 0
    output_tokens: int = 0
    """Tokens that this attempt has brought so far."""
    seq: int = -1
    """The sequence id in its worker; -1: none yet."""
    cached_tokens: int = 0
    """Prompt tokens that its worker found resident."""
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)

    @property
    def has_slot(self) -> bool:
        return self.times.started_at is not None

    @property
    def has_token(self) -> bool:
        return self.times.last_token_at is not None

    @property
    def may_start_over(self) -> bool:
        """Another attempt goes unnoticed: the client has seen nothing, and it has not been tried twice."""
        return self.attempts < MAX_ATTEMPTS and not self.stream.was_read and not self.stream.ended

    def start_over(self) -> None:
        """Forget what its lost worker did. It keeps its place in line and its deadline."""
        self.stream.start_over()
        self.times.started_at = self.times.last_token_at = None
        self.output_tokens = 0

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def end(self, used_tokens: int) -> None:
        """Give back what was not used: nothing will come any more. Called once."""
        self.stop_timer()
        if self.permit is not None:
            self.permit.sequence_over(used_tokens)
