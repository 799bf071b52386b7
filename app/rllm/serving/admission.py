"""Who is let in: a pure decision over counts, with the reason and a time after which to come back.

The queue is bounded twice, in requests and in prompt tokens that still have to be computed, because a
hundred short questions and ten long documents are different loads. The bounds hold however hot the model is.
"""

from __future__ import annotations

from dataclasses import dataclass

from rllm.errors import Overloaded, PromptTooLong

_SMOOTHING = 0.1
_MAX_RETRY_S = 120.0
"""OpenAI's client gives up when it is told to wait longer."""


@dataclass(frozen=True, slots=True)
class Limits:
    max_queue_requests: int = 256
    """Requests beyond those that have a slot."""
    max_queue_tokens: int = 0
    """Prompt tokens of the requests that have produced nothing yet. 0: eight full contexts per slot."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one instance has been given and not finished."""

    slots: int
    ctx_per_slot: int
    requests: int
    pending_prompt_tokens: int


class DrainRate:
    """How fast requests leave an instance under load: the smoothed time between two of them."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._gap_s: float | None = None

    def finished(self, now: float, still_busy: bool) -> None:
        if self._last is not None and still_busy:
            gap = now - self._last
            self._gap_s = gap if self._gap_s is None else self._gap_s + _SMOOTHING * (gap - self._gap_s)
        self._last = now

    def wait_s(self, ahead: int) -> float:
        """Time until ``ahead`` requests have left; one second each while nothing is known."""
        return max(1.0, min(_MAX_RETRY_S, ahead * (self._gap_s if self._gap_s is not None else 1.0)))


def check_fits(prompt_tokens: int, max_tokens: int, ctx_per_slot: int) -> None:
    """
    Raises:
        PromptTooLong: the request could never run, however empty the cache.
    """
    if prompt_tokens + max_tokens <= ctx_per_slot:
        return
    if prompt_tokens >= ctx_per_slot:
        raise PromptTooLong(
            f"the prompt has {prompt_tokens} tokens; the context holds {ctx_per_slot}, output included",
            param="messages",
        )
    raise PromptTooLong(
        f"the prompt has {prompt_tokens} tokens and max_tokens is {max_tokens}, together "
        f"{prompt_tokens + max_tokens}; the context holds {ctx_per_slot}",
        param="max_tokens",
    )


def check_load(load: Load, limits: Limits, num_requests: int, prompt_tokens: int, rate: DrainRate) -> None:
    """May ``num_requests`` more, with ``prompt_tokens`` together, be given to an instance of this load?

    Raises:
        Overloaded: not now.
    """
    queued = load.requests + num_requests - load.slots
    if queued > limits.max_queue_requests:
        ahead = queued - limits.max_queue_requests
        raise Overloaded(
            f"the queue is full: {max(0, load.requests - load.slots)} requests wait and the limit is "
            f"{limits.max_queue_requests}",
            retry_after_s=rate.wait_s(ahead),
        )
    max_tokens = limits.max_queue_tokens or 8 * load.slots * load.ctx_per_slot
    if load.pending_prompt_tokens and load.pending_prompt_tokens + prompt_tokens > max_tokens:
        raise Overloaded(
            f"the queue is full: {load.pending_prompt_tokens} prompt tokens wait to be computed and the "
            f"limit is {max_tokens}",
            retry_after_s=rate.wait_s(1),
        )
