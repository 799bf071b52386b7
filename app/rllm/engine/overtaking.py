"""When a short prompt may be computed before a long one that was there first, and how often.

"First" is who is first in line among those whose prompt is not complete, with a slot or without. While
somebody is first,

- prompts may pass that have at most 1/`RATIO` of what the first still has to compute,
- of no worse priority,
- together at most `SHARE` of the first one's own prompt,
- and one of them may take the slot that the first is waiting for; all others only slots beside it.

Whoever passes is charged to the first alone. So a request waits for at most 1 + `SHARE` times the prompt
tokens that it would wait for if nobody ever passed, and for at most twice as many slots: whoever
is before it in line lets no more pass than that, and then nobody passes any more.
"""

from __future__ import annotations

from rllm.engine.sequence import Sequence

RATIO = 4
SHARE = 0.5


def is_short_beside(other: Sequence, first: Sequence) -> bool:
    if other.request.priority > first.request.priority:
        return False
    return other.num_uncached * RATIO <= first.num_uncached


def may_pass(other: Sequence, first: Sequence) -> bool:
    """``other`` is short beside the first, and the first has not let too much pass yet."""
    allowance = SHARE * len(first.request.prompt) - first.passed_tokens
    return is_short_beside(other, first) and other.num_uncached <= allowance
