"""When to prefill, where prefill and decode do not mix in one step.

In a split cache llama.cpp computes a batch in pieces in which every sequence has equally many tokens, so a
step that mixes both costs as much as two and throws away the graph that pure decode steps reuse. There a step
is one or the other. Switching has a price of its own, hence newcomers are gathered for a moment while many
others decode, and a long prompt gives the decoders their share of the time between its pieces.

A crowd may go first: as long as those who wait for their first token are at least half as many as those who
decode, the decoders wait too; after `max_pause_s` they get a step, and the crowd goes on. That is for
throughput. Where a decode step takes about as long for many sequences as for few (a GPU), it gains a lot; on
a CPU it gains little, and users who are served together come back together and wait for each other.
"""

from __future__ import annotations

SHARE = 0.8
"""Prefill's part of the time while there is something to prefill and somebody decodes: a prompt takes a
quarter longer than alone, and the streams go on at a fifth of their speed."""
GATHER_SHARE = 16
"""Prefill starts when the newcomers are at least 1/GATHER_SHARE of those who decode ..."""
GATHER_S = 0.06
"""... or when the first of them has waited so long."""
CROWD = 2
"""Newcomers are a crowd when there are at least 1/CROWD as many as decoders."""
MAX_PAUSE_S = 0.5
"""How long a crowd may keep the decoders waiting, on a GPU."""


class Rhythm:
    def __init__(self, max_pause_s: float) -> None:
        """``max_pause_s``: with 0 no crowd goes first."""
        self._max_pause_s = max_pause_s
        self._paused_s = 0.0
        """Time of the prefills since the last decode step."""
        self._first_seen: float | None = None
        self._owed_s = 0.0
        """How long the decoders go first; less than nothing where their last step was longer than that."""

    def wants_prefill(self, num_decoding: int, num_under_way: int, num_newcomers: int, now: float) -> bool:
        """Should the next step be a prefill?

        Args:
            num_under_way: admitted requests whose prompt is not complete.
            num_newcomers: requests in line for which there is a slot.
        """
        if num_under_way + num_newcomers == 0:
            self._first_seen = None
            self._owed_s = 0.0
            return False
        if num_decoding == 0:
            return True
        if self._first_seen is None:
            self._first_seen = now
        if self._owed_s > 0 and not self.is_crowd(num_decoding, num_under_way + num_newcomers):
            return False
        if num_under_way:
            return True
        return num_newcomers * GATHER_SHARE >= num_decoding or now - self._first_seen >= GATHER_S

    def is_crowd(self, num_decoding: int, num_waiting: int) -> bool:
        """So many wait for their first token that they are served in full steps, one after the other."""
        return num_waiting * CROWD >= num_decoding and self._paused_s < self._max_pause_s

    def took(self, *, prefill: bool, seconds: float) -> None:
        """The step took that long."""
        if prefill:
            self._first_seen = None
            self._paused_s += seconds
            self._owed_s = min(0.0, self._owed_s) + seconds * (1 - SHARE) / SHARE
        else:
            self._paused_s = 0.0
            self._owed_s = self._owed_s - seconds if self._owed_s > 0 else 0.0
