"""One answer, followed token by token. Implements `rllm.engine.constraint.Matcher`.

llguidance never raises: it remembers that something went wrong and from then on allows what ends an answer,
which would be taken for a good end. So every answer of its is followed by a question.
"""

from __future__ import annotations

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from rllm.errors import ConstraintBroken

Bits = NDArray[np.uint32]
"""One bit per token of the vocabulary, the lowest first."""


def bits_for(vocab_size: int) -> Bits:
    return np.zeros(-(-vocab_size // 32), dtype=np.uint32)


def allowed_among(bits: Bits, tokens: NDArray[np.intp]) -> NDArray[np.bool_]:
    """For each of ``tokens`` whether its bit is set."""
    shifted: Bits = bits[tokens >> 5] >> (tokens & 31).astype(np.uint32)
    return (shifted & np.uint32(1)).astype(np.bool_)


class TokenMatcher:
    def __init__(self, native: LLMatcher, end_tokens: frozenset[int], vocab_size: int) -> None:
        self._native = native
        self._end_tokens = end_tokens
        self._vocab_size = vocab_size
        self._ended = False
        self._bits: Bits | None = None

    def allows(self, token: int) -> bool:
        if token in self._end_tokens:
            return self.is_complete
        if self._ended or self._native.is_stopped():
            self._check()
            return False
        allowed = self._native.validate_tokens([token]) == 1
        if not allowed:
            self._check()
        return allowed

    def consume(self, token: int) -> None:
        if token in self._end_tokens:
            if not self.is_complete:
                raise ConstraintBroken("the answer ended before it was complete")
            self._ended = True
            return
        if self._ended or not self._native.consume_token(token):
            raise ConstraintBroken("a token was drawn that the constraint does not allow")

    def forced(self) -> list[int]:
        if self._ended or self._native.is_stopped():
            self._check()
            return []
        tokens = self._native.compute_ff_tokens()
        self._check()
        return [] if self._end_tokens.intersection(tokens) else tokens

    def fill(self, bits: Bits) -> None:
        """Set the bits of what may come next, end tokens among them. Drops the GIL."""
        if self._ended:
            raise ConstraintBroken("the answer has ended")
        self._native.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        self._check()

    def mask(self) -> Bits:
        """`fill`, into bits that are this matcher's own and hold until the next call."""
        if self._bits is None:
            self._bits = bits_for(self._vocab_size)
        self.fill(self._bits)
        return self._bits

    def allowed(self) -> list[int]:
        """What may come next, the lowest first."""
        bits = np.unpackbits(self.mask().view(np.uint8), bitorder="little")
        return [int(token) for token in np.flatnonzero(bits)]

    def rollback(self, num_tokens: int) -> None:
        """Forget the last so many tokens."""
        if self._ended and num_tokens:
            self._ended = False
            num_tokens -= 1
        if num_tokens and not self._native.rollback(num_tokens):
            raise ConstraintBroken("the answer cannot go back")

    def copy(self) -> TokenMatcher:
        twin = TokenMatcher(self._native.deep_copy(), self._end_tokens, self._vocab_size)
        twin._ended = self._ended
        return twin

    @property
    def is_complete(self) -> bool:
        complete = self._native.is_accepting()
        if not complete:
            self._check()
        return complete

    @property
    def is_over(self) -> bool:
        over = self._ended or self._native.is_stopped()
        if over:
            self._check()
        return over

    def _check(self) -> None:
        if self._native.is_error():
            reason = self._native.get_error().partition("\n")[0][:200]
            raise ConstraintBroken(f"the answer became too much to match: {reason}")
