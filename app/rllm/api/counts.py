"""How many of a thing a request may hold: checked before any of them is looked at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counts:
    """Limits; handed to the field types as the context of their validation."""

    prompts: int = 64
    """In one completion request."""
    prompt_tokens: int = 2**31
    """Token ids in one prompt: the longest context of this server."""
    stop_strings: int = 16
    logit_bias: int = 1024


DEFAULT_COUNTS = Counts()
