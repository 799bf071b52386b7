"""Text of others, shown so that it does nothing to a terminal: model files, servers and users write anything.

What is escaped: control characters (an OSC sequence renames a window, a carriage return hides a line), marks
that turn the direction of writing, separators of lines, and halves of surrogate pairs, which no file takes.
"""

from __future__ import annotations

import re

_HARMFUL = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_IN_LINE = re.compile(f"[\x00-\x1f{_HARMFUL}]")
_IN_TEXT = re.compile(f"[\x00-\x08\x0b-\x1f{_HARMFUL}]")
_IN_JSON = re.compile(f"[{_HARMFUL}]")


def printable(text: str) -> str:
    """For one line: also line feeds and tabs become visible."""
    return _IN_LINE.sub(_escaped, text)


def printable_text(text: str) -> str:
    """For text of several lines, such as a traceback."""
    return _IN_TEXT.sub(_escaped, text)


def printable_json(text: str) -> str:
    """The same JSON. JSON's own rules escape the older control characters only."""
    return _IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
