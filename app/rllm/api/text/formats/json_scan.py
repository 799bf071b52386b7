"""A JSON object that comes in pieces: where it ends, and whether it is one."""

from __future__ import annotations

import re
from enum import Enum, auto

_BLANK = re.compile(r"[ \t\n\r]*")
_PLAIN = re.compile(r'[^"\\]*')
_SCALAR = re.compile(r"[-+.\w]*")
_WHOLE_SCALAR = re.compile(r"true|false|null|-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?", re.ASCII)
_ESCAPED = {code: f"\\u{code:04x}" for code in range(32)} | {9: "\\t", 10: "\\n", 13: "\\r"}
_MAX_DEPTH = 128
_MAX_SCALAR = 4096


class _At(Enum):
    START = auto()
    VALUE = auto()
    FIRST_VALUE = auto()
    FIRST_KEY = auto()
    KEY = auto()
    COLON = auto()
    COMMA = auto()
    IN_STRING = auto()
    IN_ESCAPE = auto()
    IN_HEX = auto()
    IN_SCALAR = auto()


class JsonScan:
    """Strict, but for control characters inside of strings, which models write: they come out escaped."""

    def __init__(self) -> None:
        self.done = False
        self.failed = False
        self._at = _At.START
        self._open: list[str] = []
        """The brackets that are to be closed."""
        self._is_key = False
        self._scalar = ""
        self._hex = 0

    def feed(self, text: str, pos: int) -> tuple[int, str]:
        """How far ``text`` belongs to the object, from ``pos`` on, and that as valid JSON."""
        pieces: list[str] = []
        while pos < len(text) and not (self.done or self.failed):
            end, piece = self._step(text, pos)
            if not self.failed:
                pieces.append(piece)
                pos = end
        return pos, "".join(pieces)

    def _step(self, text: str, pos: int) -> tuple[int, str]:
        if self._at is _At.IN_STRING:
            return self._string(text, pos)
        if self._at is _At.IN_SCALAR:
            return self._in_scalar(text, pos)
        if self._at in (_At.IN_ESCAPE, _At.IN_HEX):
            self._escape(text[pos])
            return pos + 1, text[pos]
        if (match := _BLANK.match(text, pos)) and match.end() > pos:
            return match.end(), match.group()
        return self._sign(text, pos)

    def _string(self, text: str, pos: int) -> tuple[int, str]:
        match = _PLAIN.match(text, pos)
        if match and match.end() > pos:
            return match.end(), match.group().translate(_ESCAPED)
        if text[pos] == "\\":
            self._at = _At.IN_ESCAPE
        else:
            self._at = _At.COLON if self._is_key else _At.COMMA
        return pos + 1, text[pos]

    def _escape(self, char: str) -> None:
        if self._at is _At.IN_HEX:
            self._hex -= 1
            self.failed = char not in "0123456789abcdefABCDEF"
            self._at = _At.IN_HEX if self._hex else _At.IN_STRING
        elif char == "u":
            self._at, self._hex = _At.IN_HEX, 4
        else:
            self._at = _At.IN_STRING
            self.failed = char not in '"\\/bfnrt'

    def _in_scalar(self, text: str, pos: int) -> tuple[int, str]:
        match = _SCALAR.match(text, pos)
        end = match.end() if match else pos
        self._scalar += text[pos:end]
        if end < len(text):
            self.failed = _WHOLE_SCALAR.fullmatch(self._scalar) is None
            self._at = _At.COMMA
        self.failed = self.failed or len(self._scalar) > _MAX_SCALAR
        return end, text[pos:end]

    def _sign(self, text: str, pos: int) -> tuple[int, str]:
        """One character outside of strings and scalars."""
        char, at = text[pos], self._at
        takes_value = at in (_At.VALUE, _At.FIRST_VALUE)
        if char == "{" and (takes_value or at is _At.START):
            self._enter("}", _At.FIRST_KEY)
        elif char == "[" and takes_value:
            self._enter("]", _At.FIRST_VALUE)
        elif char == '"' and (takes_value or at in (_At.FIRST_KEY, _At.KEY)):
            self._at, self._is_key = _At.IN_STRING, not takes_value
        elif char == ":" and at is _At.COLON:
            self._at = _At.VALUE
        elif char == "," and at is _At.COMMA:
            self._at = _At.KEY if self._open[-1] == "}" else _At.VALUE
        elif self._open and char == self._open[-1] and at in (_At.COMMA, _At.FIRST_KEY, _At.FIRST_VALUE):
            self._open.pop()
            self._at, self.done = _At.COMMA, not self._open
        elif takes_value and (char == "-" or char.isalnum()):
            self._at, self._scalar = _At.IN_SCALAR, ""
            return pos, ""
        else:
            self.failed = True
        return pos + 1, char

    def _enter(self, closing: str, at: _At) -> None:
        self._open.append(closing)
        self._at = at
        self.failed = len(self._open) > _MAX_DEPTH
