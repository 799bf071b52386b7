"""The limits of model and settings that a request must keep, each with one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from rllm.api.answer.request import Request
from rllm.api.settings import ApiSettings
from rllm.api.text.vocabulary import check_token_ids
from rllm.errors import BadRequest, PromptTooLong
from rllm.serving.service import ServedModel

_SPARED = 16
"""Tokens that are left free for an answer, at most, where a prompt is cut to leave room for it."""


def check_settings(request: Request, num_choices: int, settings: ApiSettings) -> None:
    """What can be refused before anything is tokenized. ``num_choices``: of all prompts."""
    n = request.n
    _at_most("n", n, settings.max_n)
    if num_choices > settings.max_choices:
        message = f"n times the number of prompts must be at most {settings.max_choices}; got {num_choices}"
        raise BadRequest(message, param="n")
    for index, text in enumerate(request.stop):
        if len(text) > settings.max_stop_chars:
            message = f"stop[{index}] must have at most {settings.max_stop_chars} characters; got {len(text)}"
            raise BadRequest(message, param="stop")


def check_model(request: Request, model: ServedModel, settings: ApiSettings) -> None:
    """What depends on the model but not on the prompt."""
    vocab_size, context = model.info.vocab_size, model.info.ctx_per_slot
    if request.logit_bias:
        biased = [token for token, _ in request.logit_bias if isinstance(token, int)]
        check_token_ids(biased, vocab_size, "logit_bias")
    if request.stop_token_ids:
        check_token_ids(request.stop_token_ids, vocab_size, "stop_token_ids")
    if request.allowed_token_ids:
        check_token_ids(request.allowed_token_ids, vocab_size, "allowed_token_ids")
    most = min(settings.max_top_logprobs, vocab_size)
    _at_most(request.logprobs_name, request.num_logprobs, most)
    _at_most("prompt_logprobs", request.num_prompt_logprobs, most)
    if request.num_scored >= 0 and not model.info.max_scored:
        raise BadRequest(
            f"log probabilities of the prompt cannot be computed for the model '{model.id}'",
            param=_scores_name(request),
            code="unsupported_parameter",
        )
    if request.min_tokens > context:
        raise PromptTooLong(
            f"min_tokens must be at most {context}, this model's context length; got {request.min_tokens}",
            param="min_tokens",
        )


def cut(prompt: tuple[int, ...], request: Request, model: ServedModel) -> tuple[int, ...]:
    """As much of the prompt as the request wants to keep."""
    keep = request.truncate_prompt_tokens
    if keep is None:
        return prompt
    if keep < 0:
        keep = max(1, model.info.ctx_per_slot - max(1, min(request.max_tokens or 1, _SPARED)))
    return prompt[:keep] if request.truncation_side == "right" else prompt[-keep:]


def check_scores(request: Request, prompts: Sequence[Sequence[int]], settings: ApiSettings) -> None:
    """Log probabilities of prompts are held in memory until the answer is complete."""
    figures = request.n * sum(map(len, prompts)) * (request.num_scored + 1)
    if figures > settings.max_prompt_logprobs:
        raise BadRequest(
            f"the prompts' log probabilities would be {figures} figures; at most"
            f" {settings.max_prompt_logprobs} are reported in one answer",
            param=_scores_name(request),
        )


def _scores_name(request: Request) -> str:
    """The field that asked for the log probabilities of the prompt."""
    return "echo" if request.num_prompt_logprobs < 0 else "prompt_logprobs"


def _at_most(name: str, value: int, limit: int) -> None:
    if value > limit:
        raise BadRequest(f"{name} must be at most {limit}; got {value}", param=name)
