"""Arrival schedules of the open loop: decided before the run, so a slow server cannot slow its own exam."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rllm_bench.records.cells import Load


def schedule(load: Load, count: int, seed: int) -> NDArray[np.float64]:
    """Seconds after the start at which each request is due; the first is due at its first gap.

    Random gaps are rescaled so that the whole takes exactly ``count / rate``: two seeds then ask for the
    same rate, and differ in how they bunch.
    """
    if load.rate is None or load.rate <= 0:
        raise ValueError("an open loop needs a rate above 0")
    if count == 0:
        return np.zeros(0)
    if load.arrival == "ramp":
        return _ramp(load.rate, load.ramp_to if load.ramp_to is not None else load.rate, count)
    if load.arrival == "constant":
        gaps = np.full(count, 1.0 / load.rate)
    else:
        shape = 1.0 if load.arrival == "poisson" else load.burstiness
        gaps = np.random.default_rng([seed, 0xA881]).gamma(shape, 1.0 / (load.rate * shape), count)
    times = np.cumsum(gaps)
    scaled: NDArray[np.float64] = times * (count / load.rate / times[-1])
    return scaled


def _ramp(start: float, end: float, count: int) -> NDArray[np.float64]:
    """Rate grows linearly in time from ``start`` to ``end``: the n-th arrival solves N(t) = n."""
    duration = 2 * count / (start + end)
    slope = (end - start) / duration
    number = np.arange(1, count + 1, dtype=np.float64)
    if abs(slope) < 1e-12:
        return number / start
    times: NDArray[np.float64] = (np.sqrt(start * start + 2 * slope * number) - start) / slope
    return times
