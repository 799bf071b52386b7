"""What OpenAI's two doors say about an answer beside its text: whose it is, and what it took."""

from __future__ import annotations

import hashlib
from typing import Any

import rllm
from rllm.api.answer.choice import Choice, Totals
from rllm.api.answer.job import Job
from rllm.engine.types import ModelInfo


def fingerprint(info: ModelInfo) -> str:
    """Changes with the model's file and with this server's version: what decides which text a seed gives."""
    identity = f"{rllm.__version__} {info.description} {info.num_params} {info.size_bytes} {info.device}"
    return f"fp_{hashlib.sha256(identity.encode()).hexdigest()[:10]}"


def head(job: Job, kind: str) -> dict[str, Any]:
    """``kind``: OpenAI's name of the object."""
    return {
        "id": job.response_id,
        "object": kind,
        "created": job.created,
        "model": job.model.id,
        "system_fingerprint": fingerprint(job.model.info),
    }


def usage(totals: Totals) -> dict[str, Any]:
    told: dict[str, Any] = {
        "prompt_tokens": totals.prompt_tokens,
        "completion_tokens": totals.completion_tokens,
        "total_tokens": totals.prompt_tokens + totals.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": totals.cached_tokens},
    }
    if totals.reasoning_tokens:
        told["completion_tokens_details"] = {"reasoning_tokens": totals.reasoning_tokens}
    return told


def progress(choice: Choice) -> dict[str, Any] | None:
    """llama-server's ``prompt_progress``; ``processed`` has the cached tokens in it."""
    timings, used = choice.timings, choice.usage
    if timings is None or used is None:
        return None
    return {
        "total": used.prompt_tokens,
        "cache": used.cached_tokens,
        "processed": used.prompt_tokens if choice.tokens else choice.computed_prompt,
        "time_ms": _ms(timings.prefill_s),
    }


def timings(choice: Choice) -> dict[str, Any] | None:
    """llama-server's ``timings``, with the time in the queue beside them."""
    times, used = choice.timings, choice.usage
    if times is None or used is None:
        return None
    computed = used.prompt_tokens - used.cached_tokens
    return {
        "cache_n": used.cached_tokens,
        "queue_ms": _ms(times.queue_s),
        "prompt_n": computed,
        "prompt_ms": _ms(times.prefill_s),
        "prompt_per_second": _rate(computed, times.prefill_s),
        "predicted_n": used.completion_tokens,
        "predicted_ms": _ms(times.decode_s),
        "predicted_per_second": _rate(used.completion_tokens, times.decode_s),
    }


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 3) if seconds > 0 else 0.0
