"""Regular expressions as JSON schemas and requests write them, made fit for Rust's dialect.

Where the two dialects read the same text differently it is rewritten or refused: a pattern must not be
enforced as something else.
"""

from __future__ import annotations

from rllm.backends.constraint.limits import MOST_PATTERN

_CLASS_LETTERS = "dDwWsS"
_HEX_DIGITS = {"x": 2, "u": 4}
_QUANTIFIERS = "*+?"
_ANY_OF_LINE = r"[^\n\r\u2028\u2029]"
_NARROW = {"W": r"[^\p{L}\p{M}\p{N}_]", "D": r"[^\p{Nd}]"}
_WIDE = {r"\w": r"\w\p{L}\p{M}\p{N}", r"\d": r"\d\p{Nd}"}
"""What is no letter (no digit) to ECMA, which knows ASCII here, and to Python, which knows all alphabets."""
_LETTER_CODES = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}


def rewritten(pattern: str, *, in_json: bool) -> str:
    """The same expression for llguidance; ECMA-262's meaning, where ``.`` ends at every line break.

    ``in_json``: what it matches stands in a string of JSON, see `can_be_quoted`.

    Raises:
        ValueError: what cannot be enforced, in words for the caller.
    """
    if len(pattern) > MOST_PATTERN:
        raise ValueError(f"a pattern may have at most {MOST_PATTERN} characters")
    return _Reader(pattern, in_json=in_json).read()


def can_be_quoted(code: int) -> bool:
    r"""Whether a string of JSON may hold the character without ``\u``, which is not allowed (`grammars`).
    llguidance leaves out of a pattern what cannot be written, and then matches something else."""
    return not (code == 0x7F or (code < 0x20 and code not in (8, 9, 10, 12, 13)))


def check_quotable(text: str) -> None:
    """
    Raises:
        ValueError: it has characters that an answer cannot hold.
    """
    if not all(can_be_quoted(ord(char)) for char in text):
        raise ValueError("control characters are not supported")


class _Reader:
    def __init__(self, text: str, *, in_json: bool) -> None:
        self._text = text
        self._in_json = in_json
        self._at = 0
        self._out: list[str] = []

    def read(self) -> str:
        while self._at < len(self._text):
            self._out.append(self._piece())
        return "".join(self._out)

    def _take(self, count: int = 1) -> str:
        taken = self._text[self._at : self._at + count]
        self._at += count
        return taken

    def _next_is(self, text: str | tuple[str, ...]) -> bool:
        return self._text.startswith(text, self._at)

    def _piece(self) -> str:
        if self._next_is("\\"):
            text, code = self._escape()
            self._check(code, code)
            return _NARROW.get(text[1:], text) if code is None else text
        if self._next_is("["):
            return self._class()
        if self._next_is("(?"):
            return self._group()
        char = self._take()
        if char in _QUANTIFIERS or char == "}":
            return char + self._lazy()
        self._check(ord(char), ord(char))
        return _ANY_OF_LINE if char == "." else char

    def _check(self, first: int | None, last: int | None) -> None:
        """Of the characters from ``first`` to ``last`` at least one can be written; None: a set of many."""
        if first is None or last is None or not self._in_json:
            return
        if not any(map(can_be_quoted, range(first, min(last, 0x80) + 1))) and first < 0x80:
            raise ValueError("control characters are not supported")

    def _lazy(self) -> str:
        """What follows a quantifier: another would mean something else in each dialect."""
        if self._next_is("?"):
            self._take()  # lazy and greedy match the same texts
        if self._at < len(self._text) and self._text[self._at] in _QUANTIFIERS:
            raise ValueError("possessive and repeated quantifiers are not supported")
        return ""

    def _group(self) -> str:
        for opening in ("(?:", "(?i)", "(?s)"):
            if self._next_is(opening):
                return self._take(len(opening))
        for opening in ("(?=", "(?!", "(?<=", "(?<!"):
            if self._next_is(opening):
                raise ValueError("lookahead and lookbehind are not supported")
        if self._next_is("(?<") or self._next_is("(?P<"):
            end = self._text.find(">", self._at)
            name = self._text[self._text.index("<", self._at) + 1 : end]
            if end > 0 and name.isidentifier():
                self._at = end + 1
                return "(?:"
        raise ValueError(f"unknown group at character {self._at}")

    def _escape(self) -> tuple[str, int | None]:
        """Its text, and the character that it stands for; None where it stands for many."""
        self._take()
        letter = self._take()
        if letter and letter in "bB":
            raise ValueError("word boundaries are not supported")
        if letter and letter in "k123456789":
            raise ValueError("references to groups are not supported")
        if letter and letter in _CLASS_LETTERS:
            return "\\" + letter, None
        if letter in _LETTER_CODES:
            return f"\\x{_LETTER_CODES[letter]:02X}", _LETTER_CODES[letter]
        if letter in ("p", "P") and self._next_is("{"):
            end = self._text.find("}", self._at)
            if end > 0:
                return f"\\{letter}{self._take(end + 1 - self._at)}", None
        if letter in _HEX_DIGITS:
            return self._code_point(_HEX_DIGITS[letter])
        if letter.isascii() and not letter.isalnum() and letter.strip():
            return letter if letter in "<>_\"'`!@%,:;=/" else "\\" + letter, ord(letter)
        raise ValueError(f"\\{letter} is not supported")

    def _code_point(self, digits: int) -> tuple[str, int]:
        text = self._take(digits)
        try:
            code = int(text, 16)
        except ValueError:
            raise ValueError("an escape of a character needs its hexadecimal digits") from None
        if len(text) < digits or 0xD800 <= code <= 0xDFFF:
            raise ValueError("half a surrogate pair is no character")
        return f"\\x{{{code:X}}}", code

    def _class(self) -> str:
        """``[...]``. In Rust's dialect ``[`` and doubled ``& ~ -`` mean something inside, in ECMA's not."""
        out = [self._take()]
        if self._next_is("^"):
            out.append(self._take())
        if self._next_is("]"):
            raise ValueError("an empty class of characters is not supported")
        while self._at < len(self._text):
            if self._next_is("]"):
                out.append(self._take())
                return "".join(out)
            first, code = self._member()
            out.append(first)
            last = code
            if code is not None and self._next_is("-") and not self._next_is(("-]", "--")):
                out.append(self._take())
                text, last = self._member()
                out.append(text)
            if out[1] != "^":
                self._check(code, last)
            elif code is None:
                out[-1] = _WIDE.get(out[-1], out[-1])
        raise ValueError("a class of characters is not closed")

    def _member(self) -> tuple[str, int | None]:
        if self._next_is("--"):
            raise ValueError("a doubled - in a class of characters is not supported")
        if self._next_is("\\"):
            return self._escape()
        char = self._take()
        if not char:
            raise ValueError("a class of characters is not closed")
        return "\\" + char if char in "[&~" else char, ord(char)
