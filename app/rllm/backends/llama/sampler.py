"""How one sequence draws its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rllm.backends.llama import lib
from rllm.backends.llama.drawing import Drawer, can_draw
from rllm.engine.port import OpenSampler
from rllm.engine.types import SamplingParams, TokenLogprob, TopLogprob

api = lib.api

_Native: TypeAlias = Any  # a ctypes pointer to a llama_sampler
_NEVER = float("-inf")


class Sampler:
    """Draws by the quickest way its parameters allow: the plain maximum, a vectorized draw, or a native
    chain, which it owns until `close`. Used by the thread that owns the context."""

    def __init__(self, op: OpenSampler, *, drawer: Drawer, vocab_size: int, num_ctx: int) -> None:
        """
        Raises:
            ValueError: a token id outside the vocabulary.
        """
        self.params = op.params
        self._drawer = drawer
        self._random = Random(op.params.seed)
        self._banned = bool(op.banned)
        self._chain: _Native | None = None
        if op.banned or not (self._is_argmax or can_draw(op.params)):
            self._chain = _chain(op.params, op.banned, vocab_size, num_ctx)
        if op.params.has_penalties:
            look_back = _look_back(op.params, num_ctx)
            for token in op.history[-look_back:] if look_back else ():
                api.llama_sampler_accept(self._chain, token)

    def draw(self, row: NDArray[np.float32], context: Any, index: int) -> int:
        """The next token after the batch's token ``index``, whose logits are ``row``."""
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
        if self._chain is None or self._is_argmax:
            return False
        return params.top_k <= 0 or params.has_penalties

    @property
    def _is_argmax(self) -> bool:
        """The next token is the maximum of the unchanged logits."""
        params = self.params
        return params.is_greedy and not (self._banned or params.logit_bias or params.has_penalties)

    def lift_ban(self) -> None:
        if self._banned:
            self._banned = False
            api.llama_sampler_free(api.llama_sampler_chain_remove(self._chain, 0))

    def close(self) -> None:
        if self._chain is not None:
            api.llama_sampler_free(self._chain)
            self._chain = None


def _chain(params: SamplingParams, banned: Sequence[int], vocab_size: int, num_ctx: int) -> _Native:
    """The samplers in llama-server's order. The ban comes first, where `Sampler.lift_ban` finds it."""
    biases = [(token, _NEVER) for token in banned]
    if not all(0 <= token < vocab_size for token, _ in (*biases, *params.logit_bias)):
        raise ValueError("a biased or banned token is outside the vocabulary")
    chain_params = api.llama_sampler_chain_default_params()
    chain_params.no_perf = True
    chain = api.llama_sampler_chain_init(chain_params)

    def add(sampler: _Native) -> None:
        api.llama_sampler_chain_add(chain, sampler)

    if biases:
        add(_logit_bias(biases, vocab_size))
    if params.logit_bias:
        add(_logit_bias(params.logit_bias, vocab_size))
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


def _logit_bias(biases: Sequence[tuple[int, float]], vocab_size: int) -> _Native:
    array = (api.llama_logit_bias * len(biases))(*biases)  # copied by the sampler
    return api.llama_sampler_init_logit_bias(vocab_size, len(biases), array)


def _look_back(params: SamplingParams, num_ctx: int) -> int:
    """llama.cpp's sampler takes -1 for 0, whatever its header says."""
    return num_ctx if params.penalty_last_n < 0 else params.penalty_last_n


def _native_seed(seed: int) -> int:
    """32 bits, never 0xFFFFFFFF, which asks llama.cpp for a random seed."""
    return seed % 0xFFFF_FFFF


def token_logprob(row: NDArray[np.float32], token: int, num_top: int) -> TokenLogprob:
    """Log probabilities from raw logits: of ``token``, and of the ``num_top`` most likely tokens."""
    highest = float(row.max())
    log_sum = highest + float(np.log(np.exp(row - highest).sum(dtype=np.float64)))
    num_top = min(num_top, len(row))
    top: Sequence[int] = ()
    if num_top > 0:
        candidates = np.argpartition(row, -num_top)[-num_top:]
        top = candidates[np.argsort(-row[candidates], kind="stable")].tolist()
    return TokenLogprob(
        token=token,
        logprob=float(row[token]) - log_sum,
        top=tuple(TopLogprob(token=other, logprob=float(row[other]) - log_sum) for other in top),
    )
