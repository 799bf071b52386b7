"""Answers in full, and what both kinds of answer have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import rllm
from rllm.api.answer.chunks import ChatChunks, Chunks, CompletionChunks
from rllm.api.answer.collect import Choice, total_usage, wire_timings
from rllm.api.answer.convert import Job
from rllm.api.answer.logprobs import Shape
from rllm.api.text.vocabulary import token_bytes
from rllm.engine.types import ModelInfo, TokenLogprob


def fingerprint(info: ModelInfo) -> str:
    """Changes with the model's file and with this server's version: what decides which text a seed gives."""
    identity = f"{rllm.__version__} {info.description} {info.num_params} {info.size_bytes} {info.device}"
    return f"fp_{hashlib.sha256(identity.encode()).hexdigest()[:10]}"


def head_of(job: Job) -> dict[str, Any]:
    if job.is_chat:
        kind = "chat.completion.chunk" if job.stream else "chat.completion"
    else:
        kind = "text_completion"
    return {
        "id": job.response_id,
        "object": kind,
        "created": job.created,
        "model": job.model.id,
        "system_fingerprint": fingerprint(job.model.info),
    }


def chunks_of(job: Job) -> Chunks:
    head, count = head_of(job), len(job.requests)
    if job.is_chat:
        return ChatChunks(head, count, with_usage=job.include_usage, echo=job.echo)
    echo = () if job.echoes_logprobs else job.echo  # which then comes with them
    return CompletionChunks(head, count, with_usage=job.include_usage, echo=echo)


def shape_of(job: Job) -> Shape:
    vocabulary = job.model.vocabulary
    added = vocabulary.piece
    if job.shows_special:
        added = partial(token_bytes, vocabulary)
    return Shape(vocabulary, as_ids=job.names_ids, added=added)


def wire_logprobs(job: Job, choice: Choice, items: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """``None`` where none were asked for. Remembers how far text offsets have come."""
    if job.num_logprobs < 0:
        return None
    shape = shape_of(job)
    return shape.chat(items) if job.is_chat else shape.completion(items, choice.offsets)


def echoed_logprobs(job: Job, index: int, choice: Choice) -> dict[str, Any] | None:
    """Of the prompt that begins the answer. What follows has its offsets behind it."""
    if not job.echoes_logprobs:
        return None
    text = job.echo[index]
    choice.offsets.jump(len(text))
    prompt = job.requests[index].prompt
    return shape_of(job).completion_prompt(prompt, choice.prompt_logprobs, job.num_logprobs, text)


def prompt_logprobs(job: Job, index: int, choice: Choice) -> dict[str, Any]:
    """vLLM's field, where it was asked for."""
    if job.num_prompt_logprobs < 0:
        return {}
    prompt = job.requests[index].prompt
    found = shape_of(job).prompt_logprobs(prompt, choice.prompt_logprobs, job.num_prompt_logprobs)
    return {"prompt_logprobs": found}


def prompt_ids(job: Job, index: int) -> dict[str, Any]:
    return {"prompt_token_ids": job.requests[index].prompt} if job.returns_ids else {}


def full_answer(job: Job, choices: Sequence[Choice]) -> dict[str, Any]:
    answer = head_of(job)
    answer["choices"] = [_full_choice(job, index, choice) for index, choice in enumerate(choices)]
    answer["usage"] = total_usage(choices, job.num_per_prompt).wire()
    timings = wire_timings(choices[0]) if len(choices) == 1 else None
    if timings:
        answer["timings"] = timings
    if job.is_chat:
        answer |= prompt_logprobs(job, 0, choices[0]) | prompt_ids(job, 0)
    return answer


def _full_choice(job: Job, index: int, choice: Choice) -> dict[str, Any]:
    text = "".join(choice.parts)
    echoed = echoed_logprobs(job, index, choice)
    logprobs = wire_logprobs(job, choice, choice.logprobs)
    if echoed is not None and logprobs is not None:
        logprobs = {name: echoed[name] + values for name, values in logprobs.items()}
    common: dict[str, Any] = {"index": index, "logprobs": logprobs, "finish_reason": str(choice.finish)}
    if job.returns_ids:
        common["token_ids"] = choice.tokens
    text = (job.echo[index] if job.echo else "") + text
    if job.is_chat:
        return {**common, "message": {"role": "assistant", "content": text, "refusal": None}}
    return {**common, "text": text, **prompt_logprobs(job, index, choice), **prompt_ids(job, index)}
