"""From a checked wire request to what the engine is asked: here the limits of model and settings hold."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from rllm.api.fields.protocol import ChatCompletionRequest, CompletionRequest, GenerationRequest
from rllm.api.settings import ApiSettings
from rllm.api.text.token_options import TokenOptions, check_token_ids
from rllm.engine.types import EngineRequest, SamplingDefaults, SamplingParams
from rllm.errors import BadRequest, PromptTooLong
from rllm.serving.service import ServedModel

COMPLETION_MAX_TOKENS = 16
"""OpenAI's default for /v1/completions. A chat answer may fill the context."""

AnyGeneration = ChatCompletionRequest | CompletionRequest


@dataclass(frozen=True, slots=True)
class Job:
    """One HTTP request on its way: all choices of all prompts, choice ``i`` at ``requests[i]``."""

    model: ServedModel
    requests: list[EngineRequest]
    response_id: str
    created: int
    is_chat: bool
    stream: bool
    include_usage: bool
    num_logprobs: int
    num_per_prompt: int
    echo: tuple[str, ...] = ()
    """Text that begins the answers, one per choice; empty where there is none."""
    num_prompt_logprobs: int = -1
    """Reported in vLLM's way; -1: none."""
    continuous_usage: bool = False
    timings_per_token: bool = False
    returns_progress: bool = False
    returns_ids: bool = False
    names_ids: bool = False
    """In log probabilities, tokens are named by their ids."""
    shows_special: bool = False
    stream_interval: int = 1
    """Tokens of a chunk, at least."""

    @property
    def echoes_logprobs(self) -> bool:
        """Prompts are repeated together with their log probabilities."""
        return bool(self.echo) and not self.is_chat and self.num_logprobs >= 0

    @property
    def reports_prompts(self) -> bool:
        return self.echoes_logprobs or self.num_prompt_logprobs >= 0


def check_settings(request: GenerationRequest, num_prompts: int, settings: ApiSettings) -> None:
    """What can be refused before anything is tokenized."""
    n = request.n or 1
    _at_most("n", n, settings.max_n)
    if n * num_prompts > settings.max_choices:
        message = (
            f"n times the number of prompts must be at most {settings.max_choices}; got {n * num_prompts}"
        )
        raise BadRequest(message, param="n")
    for index, text in enumerate(request.stop):
        if len(text) > settings.max_stop_chars:
            message = f"stop[{index}] must have at most {settings.max_stop_chars} characters; got {len(text)}"
            raise BadRequest(message, param="stop")


def check_model(request: AnyGeneration, model: ServedModel, settings: ApiSettings) -> None:
    """What depends on the model but not on the prompt."""
    vocab_size = model.info.vocab_size
    biased = [token for token, _ in request.logit_bias if isinstance(token, int)]
    check_token_ids(biased, vocab_size, "logit_bias")
    for name in ("stop_token_ids", "allowed_token_ids"):
        check_token_ids(getattr(request, name) or (), vocab_size, name)
    name = "top_logprobs" if isinstance(request, ChatCompletionRequest) else "logprobs"
    _at_most(name, request.num_logprobs, min(settings.max_top_logprobs, vocab_size))
    _at_most("prompt_logprobs", request.prompt_logprobs or 0, min(settings.max_top_logprobs, vocab_size))
    if request.num_scored >= 0 and not model.info.max_scored:
        name = "echo" if request.prompt_logprobs is None else "prompt_logprobs"
        raise BadRequest(
            f"log probabilities of the prompt cannot be computed for the model '{model.id}'",
            param=name,
            code="unsupported_parameter",
        )
    context = model.info.ctx_per_slot
    if request.min_tokens is not None and request.min_tokens > context:
        raise PromptTooLong(
            f"min_tokens must be at most {context}, this model's context length; got {request.min_tokens}",
            param="min_tokens",
        )


def cut(prompt: tuple[int, ...], request: AnyGeneration, model: ServedModel) -> tuple[int, ...]:
    """As much of the prompt as the request wants to keep."""
    keep = request.truncate_prompt_tokens
    if keep is None:
        return prompt
    if keep < 0:
        keep = max(1, model.info.ctx_per_slot - max(1, min(request.token_limit or 1, COMPLETION_MAX_TOKENS)))
    return prompt[:keep] if request.truncation_side == "right" else prompt[-keep:]


def max_tokens_for(request: AnyGeneration, num_prompt_tokens: int, model: ServedModel) -> int:
    """How much this request may generate: what it asks for, as far as the context has room.

    Raises:
        PromptTooLong: the prompt leaves no room for an answer.
        BadRequest: min_tokens cannot be reached.
    """
    context = model.info.ctx_per_slot
    is_chat = isinstance(request, ChatCompletionRequest)
    param = "messages" if is_chat else "prompt"
    room = context - num_prompt_tokens
    if num_prompt_tokens == 0:
        raise BadRequest(f"{param} has no tokens in this model's vocabulary", param=param)
    limit = request.token_limit
    if room < (0 if limit == 0 else 1):
        raise PromptTooLong(
            f"This model's maximum context length is {context} tokens, and at least one must be left for the"
            f" answer; your {param} has {num_prompt_tokens} tokens.",
            param=param,
        )
    if limit is None:
        limit = room if is_chat else COMPLETION_MAX_TOKENS
    limit = min(limit, room)
    if (request.min_tokens or 0) > limit:
        raise BadRequest(
            f"min_tokens is {request.min_tokens}, but at most {limit} tokens can be generated",
            param="min_tokens",
        )
    return limit


def check_scores(request: AnyGeneration, prompts: Sequence[Sequence[int]], settings: ApiSettings) -> None:
    """Log probabilities of prompts are held in memory until the answer is complete."""
    figures = (request.n or 1) * sum(map(len, prompts)) * (request.num_scored + 1)
    if figures > settings.max_prompt_logprobs:
        name = "prompt_logprobs" if request.prompt_logprobs is not None else "echo"
        raise BadRequest(
            f"the prompts' log probabilities would be {figures} figures; at most"
            f" {settings.max_prompt_logprobs} are reported in one answer",
            param=name,
        )


def engine_requests(
    request: AnyGeneration,
    prompts: Sequence[tuple[int, ...]],
    model: ServedModel,
    id_prefix: str,
    options: TokenOptions,
) -> list[EngineRequest]:
    """``n`` for each prompt. Choice ``j`` of each prompt draws with seed + j."""
    seed = secrets.randbits(32) if request.seed is None else request.seed
    requests: list[EngineRequest] = []
    for prompt in prompts:
        max_tokens = max_tokens_for(request, len(prompt), model)
        for choice in range(request.n or 1):
            requests.append(
                EngineRequest(
                    id=f"{id_prefix}.{len(requests)}",
                    prompt=prompt,
                    max_tokens=max_tokens,
                    min_tokens=request.min_tokens or 0,
                    ignore_eos=bool(request.ignore_eos),
                    stop=request.stop,
                    stop_tokens=tuple(request.stop_token_ids or ()),
                    keeps_stop=bool(request.include_stop_str_in_output),
                    shows_special=request.skip_special_tokens is False,
                    reports_steps=bool(request.stream) and request.reports_steps,
                    reuses_prefix=request.cache_prompt is not False,
                    sampling=_sampling(request, _fold(seed + choice), model.sampling, options),
                    priority=request.priority or 0,
                    cache_salt=request.cache_salt or "",
                )
            )
    return requests


def _sampling(
    request: AnyGeneration, seed: int, defaults: SamplingDefaults, options: TokenOptions
) -> SamplingParams:
    return SamplingParams(
        temperature=_or(request.temperature, defaults.temperature),
        top_k=max(defaults.top_k if request.top_k is None else request.top_k, 0),
        top_p=_or(request.top_p, defaults.top_p),
        min_p=_or(request.min_p, defaults.min_p),
        typical_p=_or(request.typical_p, 1.0),
        repetition_penalty=_or(request.repetition_penalty, 1.0),
        presence_penalty=_or(request.presence_penalty, 0.0),
        frequency_penalty=_or(request.frequency_penalty, 0.0),
        penalty_last_n=-1 if request.repeat_last_n is None else request.repeat_last_n,
        seed=seed,
        logit_bias=options.logit_bias,
        allowed_tokens=tuple(request.allowed_token_ids or ()),
        bad_words=options.bad_words,
        num_logprobs=request.num_logprobs,
        num_prompt_logprobs=request.num_scored,
    )


def _fold(seed: int) -> int:
    """Into 32 bits, without the value that llama.cpp takes for "random"."""
    return seed % (2**32 - 1)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _at_most(name: str, value: int, limit: int) -> None:
    if value > limit:
        raise BadRequest(f"{name} must be at most {limit}; got {value}", param=name)
