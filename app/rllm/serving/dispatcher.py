"""Chooses the instance with most of a prompt resident, unless that one has too much to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_SHARE = 0.25
"""A shorter shared part of the prompt is no reason to prefer an instance."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One instance that may be given the request."""

    outstanding_tokens: int
    """Prompt tokens to compute and tokens to generate, as far as known."""
    free_slots: int
    resident_tokens: int
    """Tokens of this request's prompt that it probably has."""


def choose(candidates: Sequence[Candidate], prompt_tokens: int, slack_tokens: int) -> int:
    """Index of the best candidate.

    Affinity may cost waiting, but not much: the instance must not have more than ``slack_tokens`` more to
    do than the least loaded one beyond what the resident part saves, nor make the request wait for a slot
    while another has one free.
    """
    least = min(range(len(candidates)), key=lambda index: _load(candidates[index], index))
    bound = candidates[least].outstanding_tokens + slack_tokens
    near = [
        index
        for index, candidate in enumerate(candidates)
        if candidate.resident_tokens >= max(1.0, MIN_SHARE * prompt_tokens)
        and candidate.outstanding_tokens <= bound + candidate.resident_tokens
        and (candidate.free_slots > 0 or candidates[least].free_slots <= 0)
    ]
    if not near:
        return least
    return min(near, key=lambda index: (-candidates[index].resident_tokens, *_load(candidates[index], index)))


def _load(candidate: Candidate, index: int) -> tuple[bool, int, int]:
    return (candidate.free_slots <= 0, candidate.outstanding_tokens, index)
