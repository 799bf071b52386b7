"""Answers in full, and what both kinds of answer have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import rllm
from rllm.api.chunks import ChatChunks, Chunks, CompletionChunks
from rllm.api.collect import Choice, total_usage, wire_timings
from rllm.api.convert import Job
from rllm.api.logprobs import chat_logprobs, completion_logprobs
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
        return ChatChunks(head, count, with_usage=job.include_usage)
    return CompletionChunks(head, count, with_usage=job.include_usage, echo=job.echo)


def wire_logprobs(job: Job, choice: Choice, items: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """``None`` where none were asked for. Remembers how far text offsets have come."""
    if job.num_logprobs < 0:
        return None
    vocabulary = job.model.vocabulary
    if job.is_chat:
        return chat_logprobs(vocabulary, items)
    shaped = completion_logprobs(vocabulary, items, choice.offset)
    if shaped["tokens"]:
        choice.offset = shaped["text_offset"][-1] + len(shaped["tokens"][-1])
    return shaped


def full_answer(job: Job, choices: Sequence[Choice]) -> dict[str, Any]:
    answer = head_of(job)
    answer["choices"] = [_full_choice(job, index, choice) for index, choice in enumerate(choices)]
    answer["usage"] = total_usage(choices, job.num_per_prompt).wire()
    timings = wire_timings(choices[0]) if len(choices) == 1 else None
    if timings:
        answer["timings"] = timings
    return answer


def _full_choice(job: Job, index: int, choice: Choice) -> dict[str, Any]:
    text = "".join(choice.parts)
    common = {
        "index": index,
        "logprobs": wire_logprobs(job, choice, choice.logprobs),
        "finish_reason": str(choice.finish),
    }
    if job.is_chat:
        return {**common, "message": {"role": "assistant", "content": text, "refusal": None}}
    return {**common, "text": (job.echo[index] if job.echo else "") + text}
