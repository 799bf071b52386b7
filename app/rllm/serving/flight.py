"""One sequence between the door and its last event, whichever workers compute it on the way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rllm.engine.types import EngineRequest
from rllm.serving.limits import Permit
from rllm.serving.stream import Stream
from rllm.serving.timeouts import Times

if TYPE_CHECKING:
    from rllm.serving.instance import Instance

MAX_ATTEMPTS = 2


@dataclass(slots=True, eq=False)
class Flight:
    request: EngineRequest
    stream: Stream
    times: Times
    permit: Permit | None = None
    instance: Instance | None = None
    """Whose worker has it; None while it waits for one."""
    attempts: int = 0
    uncached_tokens: int = 0
    """Of the prompt, as the instance was guessed to have them when it was chosen."""
    predicted_ttft_s: float = 0.0
    expected_tokens: int = 0
    """Of output."""
    output_tokens: int = 0
    """Of this attempt, so far."""
    seq: int = -1
    """The sequence id it got in its worker."""
    cached_tokens: int = 0
    timer: asyncio.TimerHandle | None = field(default=None, repr=False)

    @property
    def has_slot(self) -> bool:
        return self.times.started_at is not None

    @property
    def may_start_over(self) -> bool:
        """Its client has seen nothing and it has not been tried twice: a second attempt goes unnoticed."""
        return self.attempts < MAX_ATTEMPTS and not self.stream.was_read and not self.stream.ended

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def close(self, used_tokens: int) -> None:
        """It is over: nothing will come any more. Once."""
        self.stop_timer()
        self.instance = None
        if self.permit is not None:
            permit, self.permit = self.permit, None
            permit.sequence_over(used_tokens)
