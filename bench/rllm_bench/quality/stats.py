"""Two small tests that need no scipy: McNemar's exact test and Wilson's interval."""

from __future__ import annotations

import math

from rllm_bench.figures.stats import Interval


def wilson(successes: int, total: int, z: float = 1.959964) -> Interval:
    """The 95 % interval of a share; unlike the normal one it stays inside [0, 1]."""
    if not 0 <= successes <= total or total == 0:
        raise ValueError(f"{successes} of {total}")
    share = successes / total
    scale = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def mcnemar(lost: int, gained: int) -> float:
    """Two-sided exact p-value that flips in both directions are equally likely.

    ``lost`` counts right-to-wrong, ``gained`` wrong-to-right. Items that did not flip say nothing
    about a change and do not enter.
    """
    flips = lost + gained
    if flips == 0:
        return 1.0
    tail = sum(math.comb(flips, k) for k in range(min(lost, gained) + 1))
    return min(1.0, float(2 * tail / 2**flips))
