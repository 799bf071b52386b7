"""Finding marks in a text that comes in pieces."""

from __future__ import annotations

import re
from functools import lru_cache


class Marks:
    """Several texts that are looked for at once. Asked for every token, so it is made ready once."""

    def __init__(self, marks: tuple[str, ...]) -> None:
        known = sorted(marks, key=len, reverse=True)  # the longest wins
        self._pattern = re.compile("|".join(map(re.escape, known))) if known else None
        self._heads = frozenset(mark[:end] for mark in known for end in range(1, len(mark)))
        self._longest = max(map(len, known), default=0)

    @staticmethod
    @lru_cache(maxsize=256)
    def of(marks: tuple[str, ...]) -> Marks:
        return Marks(marks)

    def find(self, text: str, start: int, *, ended: bool) -> tuple[int, str]:
        """Where text without marks ends, and the mark that comes there; empty: none does yet.

        Args:
            ended: nothing comes after ``text``. Otherwise what may become a mark, or a longer one, waits.
        """
        found = self._pattern.search(text, start) if self._pattern else None
        if found and (ended or len(text) - found.start() >= self._longest):
            return found.start(), found.group()
        if found:
            return found.start(), "" if text[found.start() :] in self._heads else found.group()
        if ended:
            return len(text), ""
        for count in range(min(self._longest - 1, len(text) - start), 0, -1):
            if text[-count:] in self._heads:
                return len(text) - count, ""
        return len(text), ""
