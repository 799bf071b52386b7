"""How much of a prompt goes into a prefill step of a split cache.

llama.cpp computes there as many tokens of each sequence as the shortest has, then the rest, and every such
piece reads all weights: sequences with unequally many tokens cost as if each were alone. So nothing is won
by beginning a prompt behind others only to fill a step, and its rest costs a step of its own later.
"""

from __future__ import annotations

from dataclasses import dataclass

OVERRUN = 1.5
"""A prompt that can be completed may take a step so far beyond its limit: two steps of half the size take
longer than that one. On 2 cores 100 tokens took 100 ms, 85 and 15 took 105, and both kept others waiting."""
FULL_ENOUGH = 2 / 3
"""Where steps are to be full: the share from which on one takes only prompts that it can complete."""


@dataclass(frozen=True, slots=True)
class Packing:
    most: int
    """Tokens of the largest step."""
    fills: bool
    """A half-empty step wastes the device (a GPU). On a CPU one of 64 tokens computes as many a second."""

    def piece(self, pending: int, taken: int, limit: int) -> int:
        """Tokens of a prompt for a step; 0: it had better wait.

        Args:
            pending: of the prompt, not computed yet.
            taken: of the step, by prompts before it.
            limit: of the step, as far as others are to be considered.
        """
        end = taken + pending
        if end <= limit or (2 * taken < limit and end <= min(limit * OVERRUN, self.most)):
            return pending
        enough = limit * FULL_ENOUGH if self.fills else 0
        return 0 if taken > enough else limit - taken
