"""A vocabulary of bytes and three control tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

END_OF_TEXT, IM_START, IM_END = 256, 257, 258
CONTROL = {"<|endoftext|>": END_OF_TEXT, "<|im_start|>": IM_START, "<|im_end|>": IM_END}
SIZE = 256 + len(CONTROL)

_TEXT_OF = {token: text for text, token in CONTROL.items()}
_SPLIT = re.compile("(" + "|".join(map(re.escape, CONTROL)) + ")")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class FakeVocabulary:
    """Implements `rllm.engine.port.Vocabulary`. It adds no BOS, as SmolLM2 does not."""

    size = SIZE
    end_tokens = frozenset({END_OF_TEXT, IM_END})
    bos_text = "<|im_start|>"
    eos_text = "<|im_end|>"

    @property
    def chat_template(self) -> str | None:
        return CHAT_TEMPLATE

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        if not parse_special:
            return list(text.encode("utf-8", "replace"))
        tokens: list[int] = []
        for part in _SPLIT.split(text):
            tokens += [CONTROL[part]] if part in CONTROL else part.encode("utf-8", "replace")
        return tokens

    def piece(self, token: int) -> bytes:
        if not 0 <= token < SIZE:
            raise ValueError(f"token {token} is not in 0..{SIZE - 1}")
        return bytes([token]) if token < 256 else b""

    def detokenize(self, tokens: Sequence[int], *, special: bool) -> str:
        pieces = [
            _TEXT_OF[token].encode() if special and token in _TEXT_OF else self.piece(token)
            for token in tokens
        ]
        return b"".join(pieces).decode("utf-8", "replace")
