"""What one instance would do for a request: worked out once, and used at once or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rllm.engine.types import EngineRequest
from rllm.serving.admission import Load
from rllm.serving.dispatcher import Candidate
from rllm.serving.pending import Estimate, Pending
from rllm.serving.prefixes import BlockKeys

Submit = Callable[[Sequence[Pending]], None]


@dataclass(frozen=True, slots=True)
class Offer:
    """Holds until something else is given to the instance."""

    requests: Sequence[EngineRequest]
    prefixes: Sequence[BlockKeys]
    load: Load
    """The instance's load without the request."""
    estimates: Sequence[Estimate]
    """What each sequence would take, in this order."""
    uncached_tokens: int
    """Prompt tokens to compute for all of them."""
    submit: Submit
    """Gives the sequences to the instance."""

    @property
    def candidate(self) -> Candidate:
        """The offer as the dispatcher compares it: by the first sequence, which goes first."""
        resident = len(self.requests[0].prompt) - self.estimates[0].uncached_tokens
        return Candidate(self.load.outstanding_tokens, self.load.free_slots, resident)
