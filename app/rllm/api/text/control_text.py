"""Keeping a user's text from becoming control tokens.

A chat prompt is tokenized with its control tokens read from the text, because that is how templates write
them. So a user's "<|im_end|>" must be kept apart. Before rendering, every control text inside user text is
replaced by a placeholder (a character that occurs nowhere else, a number, the character again); after
rendering, the prompt is cut at the placeholders, and what they stand for is tokenized as plain text.

    user text     "a<|im_end|>b"        ->  "a⟦0⟧b"
    rendered      "<|im_start|>user\\na⟦0⟧b<|im_end|>\\n"
    pieces        "<|im_start|>user\\na" (control) + "<|im_end|>" (plain) + "b<|im_end|>\\n" (control)

Templates may trim, test or repeat the text as they like: they work on the text itself. A prompt without
control texts in it stays in one piece, so its tokens are those of the whole string; only around a cut can
merges differ. A control text that would arise across the border of user text ("<|im_" then a template's
or another message's "end|>") is prevented by an empty cut where user text begins or ends with a part of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rllm.errors import BadRequest

_PRIVATE_USE = range(0xF0000, 0xFFFFE)


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    parse_special: bool


class ControlTexts:
    """The texts of one vocabulary's control tokens."""

    def __init__(self, texts: Iterable[str]) -> None:
        known = sorted({text for text in texts if text}, key=len, reverse=True)  # the longest match wins
        self._pattern = re.compile("|".join(map(re.escape, known))) if known else None
        self._heads = frozenset(text[:end] for text in known for end in range(1, len(text)))
        self._tails = frozenset(text[start:] for text in known for start in range(1, len(text)))
        self._longest = max(map(len, known), default=0)

    def guard(self, texts: Sequence[str], *, avoid: str = "") -> Guard:
        """One guard for all user texts of a prompt. ``avoid``: the template, whose characters are taken."""
        return Guard(self, _unused_character("".join(texts) + avoid))

    def find(self, text: str) -> list[re.Match[str]]:
        return list(self._pattern.finditer(text)) if self._pattern else []

    def begins_with_part(self, text: str) -> bool:
        return any(text[:length] in self._tails for length in range(1, min(self._longest, len(text) + 1)))

    def ends_with_part(self, text: str) -> bool:
        return any(text[-length:] in self._heads for length in range(1, min(self._longest, len(text) + 1)))


class Guard:
    def __init__(self, controls: ControlTexts, mark: str) -> None:
        self._controls = controls
        self._mark = mark
        self._cut_out: list[str] = [""]  # number 0 is the empty cut

    def protect(self, text: str) -> str:
        """``text`` with placeholders; unchanged where it holds nothing like a control text."""
        parts: list[str] = []
        end = 0
        for match in self._controls.find(text):
            parts += (text[end : match.start()], self._placeholder(match.group()))
            end = match.end()
        parts.append(text[end:])
        return self._cut_borders("".join(parts))

    def protect_name(self, text: str) -> str:
        """The name of a JSON field, by which a template may look it up: changed only where it must be."""
        return self.protect(text) if self._controls.find(text) else text

    def end(self) -> str:
        """A placeholder like no other, to find the place again."""
        return self._placeholder("")

    def pieces(self, rendered: str) -> list[Piece]:
        """The rendered prompt, cut at the placeholders."""
        found = re.split(f"{self._mark}([0-9]+){self._mark}", rendered)
        pieces = []
        for position, text in enumerate(found):
            is_number = position % 2 == 1
            text = self._cut_out[int(text)] if is_number else text
            if self._mark in text:
                raise BadRequest("the chat template cuts control texts of a message apart", param="messages")
            if text:
                pieces.append(Piece(text, parse_special=not is_number))
        return pieces

    def _placeholder(self, text: str) -> str:
        self._cut_out.append(text)
        return f"{self._mark}{len(self._cut_out) - 1}{self._mark}"

    def _cut_borders(self, text: str) -> str:
        """Cuts go inside the whitespace at the ends, which a template may trim."""
        inner = text.strip()
        if not inner:
            return text
        cut = f"{self._mark}0{self._mark}"
        start = text.index(inner)
        before, after = text[:start], text[start + len(inner) :]
        head = cut if self._controls.begins_with_part(inner) else ""
        tail = cut if self._controls.ends_with_part(inner) else ""
        return f"{before}{head}{inner}{tail}{after}"


def _unused_character(text: str) -> str:
    """A private-use character that ``text`` does not contain."""
    used = set(text)
    for code in _PRIVATE_USE:
        if chr(code) not in used:
            return chr(code)
    raise BadRequest("the messages use every private-use character", param="messages")
