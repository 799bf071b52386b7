"""A request that was prepared: what the engine is asked, and what the answer's writer has to know."""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rllm.api.answer.parts import PLAIN, Machine
from rllm.api.answer.request import Request
from rllm.api.answer.token_options import TokenOptions
from rllm.engine.types import EngineRequest, SamplingDefaults, SamplingParams
from rllm.errors import BadRequest, PromptTooLong
from rllm.serving.service import ServedModel


@dataclass(frozen=True, slots=True)
class Job:
    """One request on its way: all choices of all prompts, choice ``i`` at ``requests[i]``."""

    request: Request
    model: ServedModel
    requests: list[EngineRequest]
    response_id: str
    created: int
    """Unix time."""
    echo: tuple[str, ...] = ()
    """Text that begins the answers, one per choice; empty where there is none."""
    new_machine: Callable[[], Machine] = lambda: PLAIN
    """What makes parts of one choice's text."""

    @property
    def prompt_tokens(self) -> int:
        """Each prompt once, however many choices it has."""
        return sum(len(first.prompt) for first in self.requests[:: self.request.n])


def new_response_id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


def make_job(
    request: Request,
    model: ServedModel,
    prompts: Sequence[tuple[int, ...]],
    options: TokenOptions,
    echo: tuple[str, ...],
    x_request_id: str,
    *,
    new_machine: Callable[[], Machine] = lambda: PLAIN,
    shows_special: bool = False,
) -> Job:
    """``shows_special``: control tokens are text for the machine, whatever the client is to see."""
    unique = new_response_id(request.id_prefix)
    # A client may send the same ids twice; the engine's must differ. `rllm.observe.joining` takes them apart.
    requests = engine_requests(
        request, prompts, model, f"{x_request_id}.{unique[-8:]}", options, shows_special
    )
    response_id = f"{request.id_prefix}-{request.request_id}" if request.request_id else unique
    return Job(request, model, requests, response_id, int(time.time()), echo, new_machine)


def engine_requests(
    request: Request,
    prompts: Sequence[tuple[int, ...]],
    model: ServedModel,
    id_prefix: str,
    options: TokenOptions,
    shows_special: bool = False,
) -> list[EngineRequest]:
    """``n`` for each prompt. Choice ``j`` of each prompt draws with seed + j.

    Raises:
        PromptTooLong: a prompt leaves no room for an answer.
        BadRequest: min_tokens cannot be reached.
    """
    seed = secrets.randbits(32) if request.seed is None else request.seed
    requests: list[EngineRequest] = []
    for prompt in prompts:
        max_tokens = max_tokens_for(request, len(prompt), model)
        for choice in range(request.n):
            requests.append(
                EngineRequest(
                    id=f"{id_prefix}.{len(requests)}",
                    prompt=prompt,
                    max_tokens=max_tokens,
                    min_tokens=request.min_tokens,
                    ignore_eos=request.ignore_eos,
                    stop=request.stop,
                    stop_tokens=tuple(request.stop_token_ids),
                    keeps_stop=request.include_stop_str_in_output,
                    shows_special=shows_special or not request.skip_special_tokens,
                    reports_steps=request.stream and request.reports_steps,
                    reuses_prefix=request.cache_prompt,
                    sampling=_sampling(request, _fold(seed + choice), model.sampling, options),
                    constraint=None if request.constraint is None else request.constraint.constraint,
                    priority=request.priority,
                    cache_salt=request.cache_salt,
                )
            )
    return requests


def max_tokens_for(request: Request, num_prompt_tokens: int, model: ServedModel) -> int:
    """How much this request may generate: what it asks for, as far as the context has room.

    Raises:
        PromptTooLong: the prompt leaves no room for an answer.
        BadRequest: min_tokens cannot be reached.
    """
    context, param = model.info.ctx_per_slot, request.prompts_name
    room = context - num_prompt_tokens
    if num_prompt_tokens == 0:
        raise BadRequest(f"{param} has no tokens in this model's vocabulary", param=param)
    limit = request.max_tokens
    if room < (0 if limit == 0 else 1):
        raise PromptTooLong(
            f"This model's maximum context length is {context} tokens, and at least one must be left for the"
            f" answer; your {param} has {num_prompt_tokens} tokens.",
            param=param,
        )
    if limit is None:
        limit = room if request.default_max_tokens is None else request.default_max_tokens
    limit = min(limit, room)
    if request.min_tokens > limit:
        raise BadRequest(
            f"min_tokens is {request.min_tokens}, but at most {limit} tokens can be generated",
            param="min_tokens",
        )
    return limit


def _sampling(
    request: Request, seed: int, defaults: SamplingDefaults, options: TokenOptions
) -> SamplingParams:
    return SamplingParams(
        temperature=defaults.temperature if request.temperature is None else request.temperature,
        top_k=max(defaults.top_k if request.top_k is None else request.top_k, 0),
        top_p=defaults.top_p if request.top_p is None else request.top_p,
        min_p=defaults.min_p if request.min_p is None else request.min_p,
        typical_p=request.typical_p,
        repetition_penalty=request.repetition_penalty,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        penalty_last_n=request.repeat_last_n,
        seed=seed,
        logit_bias=options.logit_bias,
        allowed_tokens=tuple(request.allowed_token_ids),
        bad_words=options.bad_words,
        num_logprobs=request.num_logprobs,
        num_prompt_logprobs=request.num_scored,
    )


def _fold(seed: int) -> int:
    """Into 32 bits, without the value that llama.cpp takes for "random"."""
    return seed % (2**32 - 1)
