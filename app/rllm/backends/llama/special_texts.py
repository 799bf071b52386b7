"""Cutting a long text where its tokens stay the same.

llama.cpp first splits a text at its special tokens, and for every piece looks for each of them up to the end
of the whole text: the square of the length, where there are many. 40,000 control tokens in 400 kB take
seconds, and hold a thread for which others wait. Cut behind a special token, both halves have the tokens
that they have together; so a long text is handed over in parts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping


class SpecialTexts:
    def __init__(self, texts: Mapping[str, bool]) -> None:
        """The texts of special tokens; True for one that swallows the white space behind it."""
        ordered = sorted((text for text in texts if text), key=len, reverse=True)
        self._texts = ordered
        self._longest = len(ordered[0]) if ordered else 0
        firm = [re.escape(text) for text in ordered if not texts[text]]
        self._pattern = re.compile("|".join(firm)) if firm else None

    def cut(self, text: str, length: int) -> Iterator[str]:
        """Parts of at least ``length`` characters, or the rest: longer where there is no safe place."""
        start = 0
        while self._pattern is not None and len(text) - start > length:
            end = self._cut_after(text, start + length)
            if end is None:
                break
            yield text[start:end]
            start = end
        if start < len(text):
            yield text[start:]

    def _cut_after(self, text: str, least: int) -> int | None:
        """The first safe place from ``least`` on."""
        if self._pattern is None:
            return None
        for match in self._pattern.finditer(text, max(0, least - self._longest)):
            if match.end() >= least and self._is_safe(text, match.end()):
                return match.end()
        return None

    def _is_safe(self, text: str, place: int) -> bool:
        """No special text lies across it: another one might win there."""
        around = text[max(0, place - self._longest + 1) : place + self._longest - 1]
        middle = place - max(0, place - self._longest + 1)
        for special in self._texts:
            found = around.find(special, max(0, middle - len(special) + 1))
            if 0 <= found < middle:
                return False
        return True
