"""The arithmetic of capacity. Pure: milliseconds, bytes and tokens in, a forecast out.

A closed loop of ``n`` users on ``n`` slots. While each user receives one token, the machine computes a decode
step of ``n`` rows and, spread evenly, the prompts of those who begin: each token of an answer of ``o`` tokens
brings ``p / o`` tokens of a prompt. So a round takes

    round = step(n) + n * p / o / prefill rate

and gives ``n`` tokens. By Little's law a request then takes ``o * round`` from begin to end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Speeds:
    """What was measured on a machine with one model."""

    step_ms: Mapping[int, float]
    """A decode step by the number of its rows; linear between them."""
    prefill_alone: float
    """Prompt tokens per ms of one request alone."""
    prefill_crowd: float
    """The same where ``crowd`` requests arrive together and fill the steps."""
    crowd: int
    model_bytes: int
    num_params: int

    def step(self, users: int) -> float:
        """Milliseconds of a decode step; beyond the largest measured number the last slope goes on."""
        rows = sorted(self.step_ms)
        times = [self.step_ms[row] for row in rows]
        if users > rows[-1] and len(rows) > 1:
            slope = (times[-1] - times[-2]) / (rows[-1] - rows[-2])
            return times[-1] + slope * (users - rows[-1])
        return float(np.interp(users, rows, times))

    def prefill(self, users: int) -> float:
        """Prompt tokens per ms: from alone to a crowd with the logarithm of the users."""
        share = min(1.0, float(np.log2(users) / np.log2(self.crowd))) if self.crowd > 1 else 1.0
        return self.prefill_alone * (1 - share) + self.prefill_crowd * share

    def scaled(self, model_bytes: int, num_params: int) -> Speeds:
        """For another model of the same type: reading the weights grows with the file, computing with the
        parameters."""
        reading, computing = model_bytes / self.model_bytes, num_params / self.num_params
        first = self.step_ms[min(self.step_ms)]
        return Speeds(
            step_ms={n: first * reading + (ms - first) * computing for n, ms in self.step_ms.items()},
            prefill_alone=self.prefill_alone / computing,
            prefill_crowd=self.prefill_crowd / computing,
            crowd=self.crowd,
            model_bytes=model_bytes,
            num_params=num_params,
        )


@dataclass(frozen=True, slots=True)
class Forecast:
    """One number of users."""

    users: int
    tokens_per_s: float
    tpot_ms: float
    """The worst case: as if every prompt were computed between two tokens of the others."""
    ttft_ms: float
    """The worst case: as if all waiting came before the first token."""


def forecast(speeds: Speeds, users: int, prompt_tokens: int, output_tokens: int) -> Forecast:
    step, rate = speeds.step(users), speeds.prefill(users)
    round_ms = step + users * prompt_tokens / output_tokens / rate
    whole = output_tokens * round_ms
    first = prompt_tokens / rate + step
    gaps = max(1, output_tokens - 1)
    return Forecast(
        users=users,
        tokens_per_s=users / round_ms * 1000,
        tpot_ms=max(step, (whole - first) / gaps),
        ttft_ms=max(first, whole - gaps * step),
    )


def most_users(
    speeds: Speeds, prompt_tokens: int, output_tokens: int, ttft_ms: float, tpot_ms: float, limit: int
) -> int:
    """The largest number up to ``limit`` that keeps both targets; 0 where one user does not."""
    held = 0
    for users in range(1, limit + 1):
        found = forecast(speeds, users, prompt_tokens, output_tokens)
        if found.ttft_ms > ttft_ms or found.tpot_ms > tpot_ms:
            break
        held = users
    return held


def calibrate(
    cells: Mapping[int, Mapping[str, float]],
    step_users: tuple[int, ...],
    prompt_tokens: int,
    output_tokens: int,
    model_bytes: int,
    num_params: int,
) -> Speeds:
    """Speeds from measured loads: ``cells`` has itl_p50_ms, ttft_p50_ms and output_tps by users.

    A step is the median gap between tokens. The rate of one prompt comes from the first token of a single
    user, that of a crowd from the throughput of the largest load.
    """
    alone, crowd = min(cells), max(cells)
    step = {users: cells[users]["itl_p50_ms"] for users in step_users}
    rate = prompt_tokens / (cells[alone]["ttft_p50_ms"] - step[alone])
    left = crowd / cells[crowd]["output_tps"] * 1000 - step[crowd]
    return Speeds(
        step_ms=step,
        prefill_alone=rate,
        prefill_crowd=crowd * prompt_tokens / output_tokens / left,
        crowd=crowd,
        model_bytes=model_bytes,
        num_params=num_params,
    )
