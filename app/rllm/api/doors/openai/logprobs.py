"""Log probabilities in the shapes of OpenAI, and in vLLM's for prompts."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rllm.api.text.vocabulary import token_bytes
from rllm.engine.port import Vocabulary
from rllm.engine.types import TokenLogprob, TopLogprob

_FLOOR = -9999.0
"""What OpenAI sends for a token that cannot be drawn; JSON has no minus infinity."""


class TextOffsets:
    """Where in a text its tokens begin, in characters: a part of a character begins where that does."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._count = 0

    def next(self, added: bytes) -> int:
        """Where a token begins that adds so much to the text."""
        begin = self._count
        self._count += len(self._decoder.decode(added))
        return begin

    def jump(self, count: int) -> None:
        """What follows begins after so many characters."""
        self._decoder.reset()
        self._count = count


@dataclass(slots=True)
class Shape:
    """How the tokens of one answer are written."""

    vocabulary: Vocabulary
    as_ids: bool = False
    """"token_id:17" and not the token's text."""
    added: Callable[[int], bytes] = field(default=lambda _: b"")
    """What a drawn token adds to the text."""

    def name(self, token: int) -> str:
        """Those that are no text by themselves are named by their bytes, as OpenAI does."""
        if self.as_ids:
            return f"token_id:{token}"
        data = token_bytes(self.vocabulary, token)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)

    def chat(self, items: Iterable[TokenLogprob]) -> dict[str, Any]:
        content = [
            {
                **self._entry(item.token, item.logprob),
                "top_logprobs": [self._entry(top.token, top.logprob) for top in item.top],
            }
            for item in items
        ]
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        data = token_bytes(self.vocabulary, token)
        text = f"token_id:{token}" if self.as_ids else data.decode(errors="replace")
        return {"token": text, "logprob": _number(logprob), "bytes": list(data)}

    def completion(self, items: Sequence[TokenLogprob], offsets: TextOffsets) -> dict[str, Any]:
        return {
            "tokens": [self.name(item.token) for item in items],
            "token_logprobs": [_number(item.logprob) for item in items],
            "top_logprobs": [self._tops(item, item.top) for item in items],
            "text_offset": [offsets.next(self.added(item.token)) for item in items],
        }

    def completion_prompt(
        self, prompt: Sequence[int], items: Sequence[TokenLogprob], num_top: int, text: str
    ) -> dict[str, Any]:
        """Of a prompt that is repeated as ``text``. Nothing precedes its first token, so that has none."""
        return {
            "tokens": [self.name(token) for token in prompt],
            "token_logprobs": [None, *(_number(item.logprob) for item in items)],
            "top_logprobs": [None, *(self._tops(item, item.top[:num_top]) for item in items)],
            "text_offset": self._prompt_offsets(prompt, text),
        }

    def _prompt_offsets(self, prompt: Sequence[int], text: str) -> list[int]:
        """What the tokens have in front of the text (BOS, a space) is not in it."""
        pieces = [token_bytes(self.vocabulary, token) for token in prompt]
        before = max(sum(map(len, pieces)) - len(text.encode()), 0)
        offsets, found = TextOffsets(), []
        for piece in pieces:
            hidden = min(before, len(piece))
            before -= hidden
            found.append(min(offsets.next(piece[hidden:]), len(text)))
        return found

    def _tops(self, item: TokenLogprob, top: Iterable[TopLogprob]) -> dict[str, float]:
        """The token itself is always among them. Where two have one name, the more likely one has it."""
        found: dict[str, float] = {}
        for one in top:
            found.setdefault(self.name(one.token), _number(one.logprob))
        found.setdefault(self.name(item.token), _number(item.logprob))
        return found

    def prompt_logprobs(
        self, prompt: Sequence[int], items: Sequence[TokenLogprob], num_top: int
    ) -> list[dict[str, Any] | None]:
        """vLLM's: for each token but the first, by token id."""
        return [None, *(self._ranked(item, num_top) for item in items)][: len(prompt)]

    def _ranked(self, item: TokenLogprob, num_top: int) -> dict[str, Any]:
        ranked = {top.token: (rank, top.logprob) for rank, top in enumerate(item.top[:num_top], start=1)}
        ranked.setdefault(item.token, (item.rank, item.logprob))
        return {
            str(token): {
                "logprob": _number(logprob),
                "rank": rank,
                "decoded_token": token_bytes(self.vocabulary, token).decode(errors="replace"),
            }
            for token, (rank, logprob) in ranked.items()
        }


def _number(logprob: float) -> float:
    return max(logprob, _FLOOR)
