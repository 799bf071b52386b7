"""How one sequence draws its tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rllm.backends.constraint.matcher import TokenMatcher
from rllm.backends.llama import lib
from rllm.backends.llama.constrained import ConstrainedRow, first_allowed, masked_row
from rllm.backends.llama.drawing import Drawer, Top, can_draw, draw_of_top, needed_of_top
from rllm.engine.constraint import draw
from rllm.engine.port import OpenSampler
from rllm.engine.types import SamplingParams

api = lib.api

_Native: TypeAlias = Any  # a ctypes pointer to a llama_sampler
_NEVER = float("-inf")
MOST_FORCED = 32
"""Tokens in one step: more would be a prompt's worth of computing between two steps of the others."""


class Sampler:
    """Draws by the quickest way its parameters allow: the plain maximum, a vectorized draw, or a native
    chain, which it owns until `close`. Used by the thread that owns the context."""

    def __init__(
        self,
        op: OpenSampler,
        *,
        drawer: Drawer,
        vocab_size: int,
        num_ctx: int,
        matcher: TokenMatcher | None = None,
    ) -> None:
        """
        Raises:
            ValueError: a token id outside the vocabulary.
        """
        self.matcher = matcher
        """Tells what may be drawn, where the answer is constrained."""
        self._was_refused = False
        """The next token was drawn from the highest logits, and the matcher did not allow it."""
        self.params = op.params
        self._drawer = drawer
        self._random = Random(op.params.seed)
        self._never = op.never
        self._biases = _Biases(op.params.logit_bias, (*op.banned, *op.never), vocab_size)
        self._words = Words(op.params.bad_words)
        self._forbidden = _others(op.params.allowed_tokens, vocab_size)
        self._is_argmax = op.params.is_greedy and not op.params.has_penalties
        self._chain: _Native | None = None
        if not (self._is_argmax or can_draw(op.params)):
            self._chain = _chain(op.params, vocab_size, num_ctx)
        self.of_top = self._of_top()
        """How many of its row's highest logits the next draw needs; 0: all."""
        if op.params.has_penalties:
            look_back = _look_back(op.params, num_ctx)
            for token in op.history[-look_back:] if look_back else ():
                api.llama_sampler_accept(self._chain, token)

    def draw(self, row: NDArray[np.float32], context: Any, index: int) -> int:
        """The next token after the batch's token ``index``, whose logits are ``row``: llama.cpp's own
        memory, where the native chain sees the biases too."""
        if self._biases.is_empty and self._words.is_empty and self._forbidden is None:
            return self._draw(row, context, index)
        unbiased = self._biases.apply(row)
        hidden = None if self._forbidden is None else row[self._forbidden]
        if hidden is not None:
            row[self._forbidden] = _NEVER
        ends = self._words.forbidden()
        endings = row[ends]
        row[ends] = _NEVER
        if ends and row.max() == _NEVER:  # nothing else is left
            row[ends] = endings
        token = self._draw(row, context, index)
        row[ends] = endings
        if hidden is not None:
            row[self._forbidden] = hidden
        self._biases.undo(row, unbiased)
        self._words.note(token)
        return token

    def _of_top(self) -> int:
        if self._chain is not None or self.params.num_logprobs >= 0 or not self._biases.only_ban:
            return 0
        if self._forbidden is not None or not self._words.is_empty:
            return 0
        return needed_of_top(self.params, len(self._biases.banned))

    def draw_of_top(self, top: Top) -> int | None:
        """`draw`, from the highest logits alone; None: they are not enough, and `draw` goes on from here."""
        if not self.of_top:
            return None
        token = draw_of_top(top, self.params, self._biases.banned, self._random.random)
        if token is None or self.matcher is None:
            return token
        if not self.matcher.allows(token):
            self._was_refused = True
            return None
        self.matcher.consume(token)
        return token

    def forced(self) -> list[int]:
        """What follows the drawn token for certain; it counts as drawn from here on."""
        if self.matcher is None or self.params.num_logprobs >= 0:
            return []
        tokens = self.matcher.forced()[:MOST_FORCED]
        for token in tokens:
            self.matcher.consume(token)
            self._words.note(token)
            if self._chain is not None:
                api.llama_sampler_accept(self._chain, token)
        return tokens

    def _draw(self, row: NDArray[np.float32], context: Any, index: int) -> int:
        if self.matcher is not None:
            token = self._draw_constrained(self.matcher, row, context, index)
            self.matcher.consume(token)
            return token
        return self._draw_free(row, context, index)

    def _draw_constrained(
        self, matcher: TokenMatcher, row: NDArray[np.float32], context: Any, index: int
    ) -> int:
        if self._chain is not None:
            return self._draw_masked(matcher, row, context, index)
        own = ConstrainedRow(row, self.params, self._drawer, self._random.random, matcher)
        if not self._was_refused:
            return draw(own, matcher)
        self._was_refused = False
        token = own.draw_allowed()
        return own.draw_masked() if token is None else token

    def _draw_masked(self, matcher: TokenMatcher, row: NDArray[np.float32], context: Any, index: int) -> int:
        """A native chain takes note of what it draws, so it is asked once: the row is masked before."""
        bits, before = matcher.mask(), row.copy()
        row[:] = masked_row(row, bits)
        try:
            if row.max() == _NEVER:
                token = first_allowed(bits)
                api.llama_sampler_accept(self._chain, token)
                return token
            return self._draw_free(row, context, index)
        finally:
            row[:] = before

    def _draw_free(self, row: NDArray[np.float32], context: Any, index: int) -> int:
        if self._is_argmax:
            return int(row.argmax())
        if self._chain is None:
            return self._drawer.draw(row, self.params, self._random.random())
        return int(api.llama_sampler_sample(self._chain, context, index))

    @property
    def is_slow(self) -> bool:
        """Whether a draw visits the vocabulary token by token."""
        params = self.params
        if params.num_logprobs >= 0:
            return True
        return self._chain is not None and (params.top_k <= 0 or params.has_penalties)

    def lift_ban(self) -> None:
        self._biases = _Biases(self.params.logit_bias, self._never, self._biases.vocab_size)
        self.of_top = self._of_top()

    def close(self) -> None:
        if self._chain is not None:
            api.llama_sampler_free(self._chain)
            self._chain = None


class _Biases:
    """What is added to a few logits before anything else looks at them."""

    def __init__(self, biases: Sequence[tuple[int, float]], banned: Sequence[int], vocab_size: int) -> None:
        total: dict[int, float] = {}
        for token, bias in (*biases, *((token, _NEVER) for token in banned)):
            total[token] = total.get(token, 0.0) + bias
        if not all(0 <= token < vocab_size for token in total):
            raise ValueError("a biased or banned token is outside the vocabulary")
        self.vocab_size = vocab_size
        self._tokens = np.fromiter(total, dtype=np.intp, count=len(total))
        self._added = np.fromiter(total.values(), dtype=np.float32, count=len(total))
        self.banned = frozenset(token for token, bias in total.items() if bias == _NEVER)
        self.only_ban = len(self.banned) == len(total)

    @property
    def is_empty(self) -> bool:
        return len(self._tokens) == 0

    def apply(self, row: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits that were there, for `undo`."""
        before = row[self._tokens]
        row[self._tokens] = before + self._added
        return before

    def undo(self, row: NDArray[np.float32], before: NDArray[np.float32]) -> None:
        row[self._tokens] = before


class Words:
    """Which tokens would complete a sequence that must not be drawn."""

    def __init__(self, words: Sequence[Sequence[int]]) -> None:
        self._words = [list(word) for word in words if word]
        self._recent: deque[int] = deque(maxlen=max(map(len, self._words), default=1) - 1)

    @property
    def is_empty(self) -> bool:
        return not self._words

    def forbidden(self) -> list[int]:
        recent = list(self._recent)
        return list(
            {
                word[-1]
                for word in self._words
                if len(word) - 1 <= len(recent) and recent[len(recent) - len(word) + 1 :] == word[:-1]
            }
        )

    def note(self, token: int) -> None:
        self._recent.append(token)


def _others(allowed: Sequence[int], vocab_size: int) -> NDArray[np.intp] | None:
    """Everything that is not allowed; None where everything is."""
    if not allowed:
        return None
    mask = np.ones(vocab_size, dtype=bool)
    mask[list(allowed)] = False
    return np.flatnonzero(mask)


def _chain(params: SamplingParams, vocab_size: int, num_ctx: int) -> _Native:
    """The samplers in llama-server's order, after the biases."""
    chain_params = api.llama_sampler_chain_default_params()
    chain_params.no_perf = True
    chain = api.llama_sampler_chain_init(chain_params)

    def add(sampler: _Native) -> None:
        api.llama_sampler_chain_add(chain, sampler)

    if params.has_penalties:
        add(
            api.llama_sampler_init_penalties(
                vocab_size,
                _look_back(params, num_ctx),
                params.repetition_penalty,
                params.frequency_penalty,
                params.presence_penalty,
            )
        )
    if params.is_greedy:
        add(api.llama_sampler_init_greedy())
        return chain
    if params.top_k > 0:
        add(api.llama_sampler_init_top_k(params.top_k))
    if params.typical_p < 1.0:
        add(api.llama_sampler_init_typical(params.typical_p, 1))
    if params.top_p < 1.0:
        add(api.llama_sampler_init_top_p(params.top_p, 1))
    if params.min_p > 0.0:
        add(api.llama_sampler_init_min_p(params.min_p, 1))
    add(api.llama_sampler_init_temp(params.temperature))
    add(api.llama_sampler_init_dist(_native_seed(params.seed)))
    return chain


def _look_back(params: SamplingParams, num_ctx: int) -> int:
    """llama.cpp's sampler takes -1 for 0, whatever its header says."""
    return num_ctx if params.penalty_last_n < 0 else params.penalty_last_n


def _native_seed(seed: int) -> int:
    """32 bits, never 0xFFFFFFFF, which asks llama.cpp for a random seed."""
    return seed % 0xFFFF_FFFF
