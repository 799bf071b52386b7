"""How many prompt tokens a step may compute beside its decodes.

A step that computes a whole long prompt makes every stream beside it stand still. While somebody decodes,
prefill is therefore cut so that a step takes about `itl_target_s`; when nobody does, it opens up fully.
Two bounds keep the newcomer alive: prefill gets at least `MIN_SHARE` of a step's time, however
slow the decodes are, and never fewer than `MIN_TOKENS`, below which a step is mostly overhead.
"""

from __future__ import annotations

MIN_SHARE = 0.6
MIN_TOKENS = 32
MIN_PREFILL_SHARE = 4
"""A step of nothing but prefill has at least 1/MIN_PREFILL_SHARE of the batch: less wastes the device."""
TILE = 16
"""Kernels compute rows in groups; what is left over costs as much as a group."""
_SMOOTHING = 0.2


class StepBudget:
    """Learns the cost of a decode step and of a prefill token from the steps it is told about."""

    def __init__(self, max_step_tokens: int, itl_target_s: float) -> None:
        self._max = max_step_tokens
        self._target_s = itl_target_s
        self._decode_s: float | None = None
        self._prefill_token_s: float | None = None

    @property
    def max_step_tokens(self) -> int:
        return self._max

    @property
    def prefill_token_s(self) -> float | None:
        """Seconds for one more prompt token in a step; None before the first was measured."""
        return self._prefill_token_s

    def prefill_tokens(self, num_decodes: int) -> int:
        """Most prompt tokens for a step that also computes ``num_decodes`` decodes."""
        room = max(0, self._max - num_decodes)
        if num_decodes == 0 or self._prefill_token_s is None:
            return room
        decode_s = self._decode_s or 0.0
        time_s = max(self._target_s - decode_s, decode_s * MIN_SHARE / (1 - MIN_SHARE))
        return min(room, max(MIN_TOKENS, int(time_s / self._prefill_token_s)))

    def prefill_step_tokens(self, *, others_decode: bool) -> int:
        """Most prompt tokens for a step that computes nothing else."""
        if not others_decode or self._prefill_token_s is None:
            return self._max
        wanted = int(self._target_s / self._prefill_token_s) // TILE * TILE
        return min(self._max, max(self._max // MIN_PREFILL_SHARE, wanted))

    def learn(self, num_decodes: int, num_prefill: int, seconds: float) -> None:
        """A step of that shape took that long."""
        if seconds <= 0:
            return
        if num_prefill == 0:
            if num_decodes:
                self._decode_s = _blend(self._decode_s, seconds)
        elif num_prefill >= MIN_TOKENS // 2:
            rest = seconds - (self._decode_s or 0.0) if num_decodes else seconds
            self._prefill_token_s = _blend(self._prefill_token_s, max(rest, seconds * 0.1) / num_prefill)


def _blend(old: float | None, new: float) -> float:
    return new if old is None else old + _SMOOTHING * (new - old)
