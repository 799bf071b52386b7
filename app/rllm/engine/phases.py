"""When to prefill and how much, where prefill and decode do not mix in one step: in a split cache.

llama.cpp computes there as many tokens of each sequence as the shortest has, then the rest, and every such
piece reads all weights. So a step that mixes prefill and decode costs as much as two, and throws away the
graph that steps of decodes reuse. A step is one or the other, and a long prompt gives the decoders their
share of the time between its chunks. Switching has a price of its own, hence waiting requests are gathered
for a moment while many others decode.

A crowd may go first: as long as those who wait for their first token are at least half as many as those who
decode, the decoders wait too; after `max_pause_s` they get a step, and the crowd goes on. That is for
throughput. Where a decode step takes about as long for many sequences as for few (a GPU), it gains a lot; on
a CPU it gains little, and users who are served together come back together and wait for each other.
"""

from __future__ import annotations

from dataclasses import dataclass

from rllm.engine.tuning import DEFAULT, Tuning


class PhasePolicy:
    def __init__(self, max_pause_s: float, tuning: Tuning = DEFAULT) -> None:
        """``max_pause_s``: with 0 no crowd goes first."""
        self._max_pause_s = max_pause_s
        self._tuning = tuning
        self._paused_s = 0.0
        """Time of the prefills since the last decode step."""
        self._first_seen: float | None = None
        self._owed_s = 0.0
        """How long the decoders go first; less than nothing where their last step was longer than that."""

    def wants_prefill(self, num_decoding: int, num_under_way: int, num_waiting: int, now: float) -> bool:
        """Should the next step be a prefill?

        Args:
            num_under_way: admitted requests whose prompt is not complete.
            num_waiting: requests in line for which there is a slot.
        """
        if num_under_way + num_waiting == 0:
            self._first_seen = None
            self._owed_s = 0.0
            return False
        if num_decoding == 0:
            return True
        if self._first_seen is None:
            self._first_seen = now
        if self._owed_s > 0 and not self.is_crowd(num_decoding, num_under_way + num_waiting):
            return False
        if num_under_way:
            return True
        if num_waiting * self._tuning.gather_ratio >= num_decoding:
            return True
        return now - self._first_seen >= self._tuning.gather_s

    def is_crowd(self, num_decoding: int, num_waiting: int) -> bool:
        """So many wait for their first token that they are served in full steps, one after the other."""
        return num_waiting * self._tuning.crowd_ratio >= num_decoding and self._paused_s < self._max_pause_s

    def took(self, *, prefill: bool, seconds: float) -> None:
        """The step took that long."""
        if prefill:
            share = self._tuning.prefill_share
            self._first_seen = None
            self._paused_s += seconds
            self._owed_s = min(0.0, self._owed_s) + seconds * (1 - share) / share
        else:
            self._paused_s = 0.0
            self._owed_s = self._owed_s - seconds if self._owed_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class ChunkSizer:
    """How much of a prompt goes into a prefill step.

    Sequences with unequally many tokens cost as if each were alone. So nothing is won by beginning a prompt
    behind others only to fill a step, and its rest costs a step of its own later.
    """

    most: int
    """Tokens of the largest step."""
    fills: bool
    """A half-empty step wastes the device (a GPU). On a CPU one of 64 tokens computes as many a second."""
    tuning: Tuning = DEFAULT

    def size(self, pending: int, taken: int, limit: int) -> int:
        """Tokens of a prompt for a step; 0: it had better wait.

        Args:
            pending: of the prompt, not computed yet.
            taken: of the step, by prompts before it.
            limit: of the step, as far as others are to be considered.
        """
        end = taken + pending
        if end <= limit or (2 * taken < limit and end <= min(limit * self.tuning.overrun, self.most)):
            return pending
        enough = limit * self.tuning.full_enough if self.fills else 0
        return 0 if taken > enough else limit - taken
