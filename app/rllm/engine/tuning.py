"""Numbers that decisions depend on, in one place.

A docstring names the report that chose a value. A value without one was chosen by hand.
"""

from __future__ import annotations

import msgspec


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """Shares are parts of 1, ratios are how many times more, weights those of the newest of measurements."""

    # The line of waiting requests (`rllm.engine.line`)
    aging_s: float = 30.0
    """Seconds of waiting that one level of priority is worth."""
    pass_ratio: int = 4
    """A prompt may pass one that has this many times as much to compute."""
    pass_share: float = 0.5
    """What passes a request together, as a share of its own prompt."""
    scan: int = 16
    """How far past requests that have to wait the line is searched for others."""
    min_wait: int = 8
    """Tokens that waiting for the same prefix of another request must save."""

    # Steps that mix prefill and decode, in a unified cache (`rllm.engine.steps`)
    mixed_share: float = 0.6
    """Share of a step's time that prefill gets at least, however slow the decodes are."""
    mixed_tokens: int = 32
    """Prompt tokens that a step beside decodes may have at least: fewer are mostly overhead."""

    # Steps of one kind, in a split cache (`rllm.engine.steps`, `rllm.engine.phases`)
    prefill_share: float = 0.8
    """Prefill's share of the time while others decode: a prompt takes a quarter longer than alone.
    Report: 2026-11-28-versus-llama-server-2cpu."""
    least_fill: float = 0.25
    """Share of the largest step that a prefill step has at least: less wastes the device."""
    tile: int = 16
    """Kernels compute rows in groups; what is left over costs as much as a group."""
    overrun: float = 1.5
    """How far past its limit a step may go to complete a prompt: on 2 cores 100 tokens took 100 ms, 85 and 15
    took 105, and both kept others waiting. Report: 2026-11-28-versus-llama-server-2cpu."""
    full_enough: float = 2 / 3
    """On a GPU: the share of a step from which on it takes only prompts that it can complete."""
    gather_ratio: int = 16
    """Prefill starts when one request waits for this many that decode ..."""
    gather_s: float = 0.06
    """... or when the first of them has waited so long."""
    crowd_ratio: int = 2
    """Waiting requests are a crowd when there is one for this many that decode."""
    crowd_pause_s: float = 0.5
    """On a GPU: how long a crowd may keep those who decode waiting.
    Report: h100-2026-11-25-crowd-first, in the archive."""

    # Learning what steps take (`rllm.engine.times`)
    step_weight: float = 0.2
    move_weight: float = 0.3
    change_weight: float = 0.1
    trust: float = 0.999
    """What is left of an estimate each time it decided against something, which is then not measured."""
    min_learn: int = 16
    """Prompt tokens of a step that says what a prompt token takes."""
    known_after: int = 3
    """Steps after which the time of a number of rows is known."""
    settling_steps: int = 3
    """Steps with another number of rows until nothing is built any more: llama.cpp's graph, then CUDA's."""
    most_change_s: float = 0.05
    """A step that takes longer than usual by more than this was disturbed by something else."""

    # Rows that complete a kernel's group (`rllm.backends.llama.padding`)
    group_rows: int = 3
    """Throw-away rows that a step of decodes may get. Report: 2026-11-28-versus-llama-server-2cpu."""
    group_gain: float = 0.97
    """More rows are computed when that took less than this part of the time: less is noise."""

    # Moving tokens (`rllm.engine.moving`); the first three hold until something was measured
    min_copy: int = 64
    """Tokens of a prefix from which on a copy between streams beats computing them."""
    max_loss: int = 4
    """An idle prefix is continued in place when this many times as much is kept as is cut off."""
    min_restore: int = 64
    """Tokens that a restore must save."""
    return_chance: float = 0.25
    """How likely what is cut off or dropped is asked for again, as long as nothing better is known."""

    # Prefixes outside the cache (`rllm.engine.offload`)
    save_share: float = 0.05
    """Share of the time that saving may take beside computing ..."""
    save_pause_s: float = 0.05
    """... saved up for at most so long a pause."""
    return_prior: float = 4.0
    """Saves that the first estimate of the chance of a return counts for."""
    return_memory: float = 0.99
    """What is left of the counted saves and returns when a save did not pay."""

    # Drafts (`rllm.engine.drafts`, `rllm.engine.lookup`)
    draft_margin: float = 0.03
    """Share of a step's time that another number of drafts must gain: less is noise."""
    look_back: int = 8192
    """Tokens of a prompt that are searched for what repeats."""
    longest_match: int = 8
    """Matches longer than this are as good as one of this length."""
    first_rate: float = 0.5
    """How often drafts are right, before any was judged."""
    own_weight: float = 0.1
    """How much a draft changes what is expected of its sequence's drafts ..."""
    common_weight: float = 0.01
    """... and of those of sequences to come."""


DEFAULT = Tuning()
