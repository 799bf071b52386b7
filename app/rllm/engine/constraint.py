"""What an answer must match, and how a token is drawn that does.

The engine knows this protocol only; grammars and schemas are known to `rllm.backends.constraint`.

A row is drawn as if nothing were constrained. Most tokens that a model wants are allowed, so the matcher is
asked about one token instead of masking the whole vocabulary. Only where it refuses the row is masked and
drawn again:

1. draw from the row, truncated (top-k, top-p, min-p): an allowed token is the answer;
2. else draw again, from what truncation kept and the matcher allows;
3. where that is nothing, mask the whole row first, then truncate and draw.

This is the distribution of "truncate, then mask" and nothing else. Let p be the truncated distribution and Z
the weight of its allowed tokens. An allowed token x comes from the first draw with probability p(x), from the
second with (1 - Z) * p(x) / Z: together p(x) / Z. The two draws must be independent, so the second takes a
random number of its own. Greedy drawing keeps one token, so a refusal goes to step 3: the highest allowed
logit, as if the row had been masked from the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

import msgspec


class Kind(Enum):
    """How a constraint is written; see `rllm.backends.constraint`."""

    JSON_OBJECT = "json_object"
    """Any JSON object; without a source."""
    JSON_SCHEMA = "json_schema"
    """The schema as JSON text."""
    REGEX = "regex"
    """The whole answer matches it."""
    CHOICE = "choice"
    """A JSON list of strings; the answer is one of them."""
    GRAMMAR = "grammar"
    """GBNF or Lark, told apart by their looks."""
    STRUCTURAL_TAG = "structural_tag"
    """Free text, with JSON between certain tags; vLLM's object as JSON text."""


class Constraint(msgspec.Struct, frozen=True, gc=False):
    """As a request asked for it. Checked before the request is accepted; compiled where it is served."""

    kind: Kind
    source: str = ""
    any_whitespace: bool = False
    """In JSON: line breaks and indentation as the model likes. Otherwise one space after each comma and
    colon, as `json.dumps` writes it: then more tokens are forced, and nothing can loop on white space."""


class Preparation(Protocol):
    """Something that is done beside the steps; a `concurrent.futures.Future` is one."""

    def done(self) -> bool: ...

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait until it is done, for ``timeout`` seconds at most; why it failed, if it did.

        Raises:
            TimeoutError: it is not done.
        """
        ...


class Prepares(Protocol):
    """Of a backend, for those who are to draw under a constraint."""

    def prepare(self, constraint: Constraint) -> Preparation:
        """Get ready for an OpenSampler with it, beside the steps; fails with `ConstraintRefused`."""
        ...


class Matcher(Protocol):
    """Where one answer stands in what it must match. Used by one thread at a time.

    Every method raises `EngineError` where the answer cannot go on: that ends the answer, never the process.
    """

    def allows(self, token: int) -> bool:
        """Whether it may come next. An end token may where the answer is complete."""
        ...

    def consume(self, token: int) -> None:
        """It was drawn."""
        ...

    def forced(self) -> Sequence[int]:
        """What must come next whatever the model says; often nothing.

        Ends before a token that the model might join with what follows it: forcing the shorter token would
        give the model a text that it never saw cut in that way.
        """
        ...

    @property
    def is_complete(self) -> bool:
        """The answer may end here."""
        ...

    @property
    def is_over(self) -> bool:
        """The answer must end here: nothing but an end token is allowed."""
        ...


class Row(Protocol):
    """The logits after one token of one sequence, with its sampling parameters and random numbers."""

    def draw(self) -> int:
        """From what truncation keeps; the constraint is not looked at."""
        ...

    def draw_allowed(self) -> int | None:
        """From what truncation keeps and the constraint allows; None where that is nothing."""
        ...

    def draw_masked(self) -> int:
        """From what the constraint allows, truncated afterwards."""
        ...


def draw(row: Row, matcher: Matcher) -> int:
    """A token that ``matcher`` allows; it is not consumed yet."""
    token = row.draw()
    if matcher.allows(token):
        return token
    again = row.draw_allowed()
    return row.draw_masked() if again is None else again
