"""Log probabilities in OpenAI's two shapes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rllm.api.vocabulary import token_bytes, token_text
from rllm.engine.port import Vocabulary
from rllm.engine.types import TokenLogprob

_FLOOR = -9999.0
"""What OpenAI sends for a token that cannot be drawn; JSON has no minus infinity."""


def chat_logprobs(vocabulary: Vocabulary, items: Iterable[TokenLogprob]) -> dict[str, Any]:
    content = [
        {
            **_entry(vocabulary, item.token, item.logprob),
            "top_logprobs": [_entry(vocabulary, top.token, top.logprob) for top in item.top],
        }
        for item in items
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(vocabulary: Vocabulary, items: Iterable[TokenLogprob], offset: int) -> dict[str, Any]:
    """``offset``: characters of the answer before the first item, counted over token texts."""
    tokens: list[str] = []
    offsets: list[int] = []
    values: list[float] = []
    tops: list[dict[str, float]] = []
    for item in items:
        text = token_text(vocabulary, item.token)
        tokens.append(text)
        offsets.append(offset)
        values.append(_number(item.logprob))
        tops.append({token_text(vocabulary, top.token): _number(top.logprob) for top in item.top})
        offset += len(text)
    return {"tokens": tokens, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}


def _entry(vocabulary: Vocabulary, token: int, logprob: float) -> dict[str, Any]:
    data = token_bytes(vocabulary, token)
    return {"token": data.decode(errors="replace"), "logprob": _number(logprob), "bytes": list(data)}


def _number(logprob: float) -> float:
    return max(logprob, _FLOOR)
