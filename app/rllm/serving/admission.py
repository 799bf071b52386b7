"""Decides from counts alone whether a request is let in. A refusal has a reason and a time to come back.

The queue is bounded twice, in requests and in prompt tokens to compute: a hundred short questions and ten
long documents are different loads. A request whose predicted wait exceeds its deadline is refused now.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rllm.errors import Overloaded, PromptTooLong
from rllm.settings.limits import Limits

MAX_RETRY_S = 120.0
"""OpenAI's client gives up when it is told to wait longer."""
_MIN_RETRY_S = 0.25


@dataclass(frozen=True, slots=True)
class Load:
    """What one instance has been given and not finished, and how fast it works."""

    slots: int
    ctx_per_slot: int
    requests: int
    pending_prompt_tokens: int
    """Uncached prompt tokens of requests without a first token."""
    queued_prompt_tokens: int = 0
    """The part of them that belongs to requests without a slot."""
    outstanding_tokens: int = 0
    """Prompt tokens to compute and tokens to generate, as far as known."""
    gap_s: float | None = None
    """Seconds between two requests that leave, when all slots are taken."""
    prefill_token_s: float | None = None
    """Seconds for one more prompt token."""
    output_tokens: int = 1
    """Tokens that answers usually have."""
    frees_s: tuple[float, ...] = ()
    """Seconds until each slot will probably become free, soonest first. May be left out while one is free."""
    ttft_margin_s: float = 0.0
    """Seconds by which first tokens come later than predicted, most of the time."""

    @property
    def num_queued(self) -> int:
        return max(0, self.requests - self.slots)

    @property
    def free_slots(self) -> int:
        return self.slots - self.requests

    def with_another(self, uncached_tokens: int) -> Load:
        """The load once a request with so many tokens to compute is in line."""
        return replace(
            self,
            requests=self.requests + 1,
            pending_prompt_tokens=self.pending_prompt_tokens + uncached_tokens,
            queued_prompt_tokens=self.queued_prompt_tokens + uncached_tokens,
        )


def predicted_ttft_s(load: Load, uncached_tokens: int) -> float:
    """Seconds until one more request would get its first token. What was not measured yet counts as nothing.

    It waits for a slot, then for the prompts of those before it in the queue, which got theirs just before.
    """
    token_s = load.prefill_token_s or 0.0
    computing_s = load.pending_prompt_tokens * token_s
    place = load.requests + 1 - load.slots
    if place > 0:
        computing_s = max(computing_s, _slot_s(load, place) + load.queued_prompt_tokens * token_s)
    return computing_s + uncached_tokens * token_s


def _slot_s(load: Load, place: int) -> float:
    """Seconds until the ``place``-th slot becomes free. A request that gets one before holds it as usual."""
    gap_s = load.gap_s or 0.0
    rounds, index = divmod(place - 1, load.slots)
    if index < len(load.frees_s):
        return load.frees_s[index] + rounds * load.slots * gap_s
    return place * gap_s


def retry_after_s(gap_s: float | None, num_requests: int) -> float:
    """Seconds until ``num_requests`` have left, one every ``gap_s``; a second each while nothing is known."""
    gap_s = 1.0 if gap_s is None else gap_s
    return max(_MIN_RETRY_S, min(MAX_RETRY_S, num_requests * gap_s))


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


def check_load(
    load: Load, limits: Limits, num_requests: int, uncached_tokens: int, ttft_s: float | None
) -> None:
    """Check that an instance has room for ``num_requests`` with ``uncached_tokens`` in all.

    Args:
        ttft_s: the longest wait for the first token that is of use; None: any.

    Raises:
        Overloaded: it has none now.
    """
    over = load.requests + num_requests - load.slots - limits.max_queue_requests
    if over > 0:
        raise Overloaded(
            f"the queue is full: {load.num_queued} requests wait and the limit is "
            f"{limits.max_queue_requests}",
            retry_after_s=retry_after_s(load.gap_s, over),
            bound="queue_requests",
        )
    max_tokens = limits.max_queue_tokens or 8 * load.slots * load.ctx_per_slot
    # One prompt is let in however long it is: it fits the context, and nothing else waits.
    if load.pending_prompt_tokens and load.pending_prompt_tokens + uncached_tokens > max_tokens:
        raise Overloaded(
            f"the queue is full: {load.pending_prompt_tokens} prompt tokens wait to be computed and the "
            f"limit is {max_tokens}",
            retry_after_s=retry_after_s(load.gap_s, 1),
            bound="queue_tokens",
        )
    if ttft_s is None:
        return
    expected_s = predicted_ttft_s(load, uncached_tokens)
    # An empty instance makes nobody wait: a margin from a bad time must not keep it empty.
    if load.requests:
        expected_s += load.ttft_margin_s
    if expected_s > ttft_s:
        raise Overloaded(
            f"the first token would take about {expected_s:.2f} s and the request allows {ttft_s:.2f} s",
            retry_after_s=max(_MIN_RETRY_S, min(MAX_RETRY_S, expected_s - ttft_s)),
            bound="first_token_time",
        )
