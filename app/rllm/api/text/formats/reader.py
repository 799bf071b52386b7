"""Reading a text that comes in pieces, as if it were there: what needs more of it pauses."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import TypeAlias, TypeVar

from rllm.api.text.formats.json_scan import JsonScan
from rllm.api.text.formats.shapes import ID, INDEX, NUMBER

T = TypeVar("T")
Paused: TypeAlias = Generator[None, None, T]
"""Yields whenever it needs more text, and returns a value."""

_SLOT = re.compile(f"({ID}|{INDEX}|{NUMBER})")
_WORD = re.compile(r"""[^\s<>()\[\]{}"'=:,|｜`]*""")
_LONGEST_NAME = 256


class Malformed(Exception):
    """The text is not what it began to be."""


class Reader:
    def __init__(self) -> None:
        self.text = ""
        self.pos = 0
        self.ended = False

    def wait(self) -> Paused[None]:
        """
        Raises:
            Malformed: the text has ended.
        """
        if self.ended:
            raise Malformed
        yield

    def skip_blank(self) -> Paused[None]:
        """Whitespace; also over the end of the text."""
        while True:
            while self.pos < len(self.text) and self.text[self.pos].isspace():
                self.pos += 1
            if self.pos < len(self.text) or self.ended:
                return
            yield

    def begins(self, word: str) -> Paused[bool]:
        """Whether the text goes on with this; it is not consumed. Never for an empty word."""
        while word and not self.ended and len(self.text) - self.pos < len(word):
            if not word.startswith(self.text[self.pos :]):
                return False
            yield
        return bool(word) and self.text.startswith(word, self.pos)

    def expect(self, literal: str) -> Paused[str]:
        """A text with slots; whitespace may be more or less than it has. The id in it, if there is one.

        Raises:
            Malformed: something else comes, or the end.
        """
        call_id = ""
        for piece in _SLOT.split(literal):
            if piece == ID:
                call_id = yield from self.name()
            elif piece in (INDEX, NUMBER):
                yield from self.name()
            else:
                for word in piece.split():
                    yield from self.skip_blank()
                    if not (yield from self.begins(word)):
                        raise Malformed
                    self.pos += len(word)
        return call_id

    def close(self, literal: str) -> Paused[str]:
        """As `expect`, but the text may end before or inside of it: a model's last marker is not shown."""
        yield from self.skip_blank()
        start = self.pos
        try:
            return (yield from self.expect(literal))
        except Malformed:
            rest = "".join(self.text[start:].split())
            if self.ended and "".join(_SLOT.split(literal)[0].split()).startswith(rest):
                self.pos = len(self.text)
                return ""
            raise

    def name(self) -> Paused[str]:
        """Of a function or an id, as far as such a thing can go.

        Raises:
            Malformed: there is none, or it does not end.
        """
        yield from self.skip_blank()
        start = self.pos
        while True:
            match = _WORD.match(self.text, start)
            end = match.end() if match else start
            if end < len(self.text) or self.ended or end - start > _LONGEST_NAME:
                break
            yield
        if not 0 < end - start <= _LONGEST_NAME:
            raise Malformed
        self.pos = end
        return self.text[start:end]

    def until(self, mark: str) -> Paused[str]:
        """The text up to a mark, which is consumed.

        Raises:
            Malformed: it does not come.
        """
        start = search = self.pos
        while (found := self.text.find(mark, search)) < 0:
            search = max(start, len(self.text) - len(mark) + 1)
            yield from self.wait()
        self.pos = found + len(mark)
        return self.text[start:found]

    def json_object(self) -> Generator[str, None, None]:
        """The pieces of an object as they come, as valid JSON; empty ones are pauses.

        Raises:
            Malformed: it is none; what was valid of it has been yielded.
        """
        yield from ("" for _ in self.skip_blank())
        scan = JsonScan()
        while not scan.done:
            self.pos, piece = scan.feed(self.text, self.pos)
            if piece:
                yield piece
            if scan.failed:
                raise Malformed
            if not scan.done:
                yield from ("" for _ in self.wait())
