"""From token pieces to text a client may see: whole characters only, and nothing of a stop string.

Two things are held back: bytes of an unfinished UTF-8 character, and text that may turn out to be the
beginning of a stop string. Both cost O(1) per character, however many stop strings there are, and a piece
that was seen before in the same place costs one look-up.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple, TypeAlias

_REMEMBERED = 1024
"""Outcomes that an automaton remembers before it begins anew."""

Piece: TypeAlias = "str | bytes"
"""What a token adds to a text: bytes where they may be a part of a character only."""


class Pieces(dict[int, Piece]):
    """The pieces of the tokens that have occurred."""

    def __init__(self, piece: Callable[[int], bytes]) -> None:
        super().__init__()
        self._piece = piece

    def __missing__(self, token: int) -> Piece:
        said = self._piece(token)
        piece: Piece = said
        with suppress(UnicodeDecodeError):
            piece = said.decode()
        self[token] = piece
        return piece


class Seen(NamedTuple):
    """What an automaton makes of a text."""

    state: int
    depth: int
    """Length of the longest suffix that begins some stop string: exactly what has to be held back."""
    end: int = 0
    stop: str | None = None
    """The first stop string that is complete, and where in the text it ends."""


class StopAutomaton:
    """Finds stop strings: Aho-Corasick over characters (Aho and Corasick, CACM 18(6), 1975).

    It has no state of its own, so that all requests with the same stop strings share one.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._fail: list[int] = [0]
        self._depth: list[int] = [0]
        self._match: list[str | None] = [None]
        for stop in stops:
            self._add(stop)
        self._link()
        self._seen: dict[tuple[int, str, bool], Seen] = {}

    def _add(self, stop: str) -> None:
        state = 0
        for char in stop:
            following = self._next[state].get(char)
            if following is None:
                following = len(self._next)
                self._next.append({})
                self._fail.append(0)
                self._depth.append(self._depth[state] + 1)
                self._match.append(None)
                self._next[state][char] = following
            state = following
        if state:
            self._match[state] = stop

    def _link(self) -> None:
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            for char, following in self._next[state].items():
                queue.append(following)
                fail = self._step(self._fail[state], char)
                self._fail[following] = fail
                if self._match[following] is None:
                    self._match[following] = self._match[fail]

    def _step(self, state: int, char: str) -> int:
        while state and char not in self._next[state]:
            state = self._fail[state]
        return self._next[state].get(char, 0)

    def see(self, state: int, text: str, may_stop: bool = True) -> Seen:
        """From ``state`` (0 at the beginning) take ``text``, up to the end of the first stop string in it.

        With ``may_stop`` off all of it is taken and nothing is found.
        """
        key = (state, text, may_stop)
        seen = self._seen.get(key)
        if seen is None:
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            seen = self._seen[key] = self._walk(state, text, may_stop)
        return seen

    def _walk(self, state: int, text: str, may_stop: bool) -> Seen:
        for index, char in enumerate(text):
            state = self._step(state, char)
            if may_stop and self._match[state] is not None:
                return Seen(state, self._depth[state], index + 1, self._match[state])
        return Seen(state, self._depth[state])


@lru_cache(maxsize=32)
def stop_automaton(stops: tuple[str, ...]) -> StopAutomaton:
    return StopAutomaton(stops)


class TextAssembler:
    """The visible text of one request, in pieces. `feed` what tokens add, `flush` at the end."""

    __slots__ = ("_decoder", "_held", "_is_whole", "_keeps_stop", "_state", "_stops", "stop_string")

    def __init__(self, stops: tuple[str, ...] = (), *, keeps_stop: bool = False) -> None:
        """``keeps_stop``: the stop string that ends the text is its end, and not what comes after it."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = stop_automaton(stops) if stops else None
        self._keeps_stop = keeps_stop
        self._state = 0
        self._is_whole = True
        """The decoder holds no part of a character back."""
        self._held = ""
        self.stop_string: str | None = None
        """The stop string that ended the text, once one did. Nothing is accepted afterwards."""

    def feed(self, piece: Piece, may_stop: bool = True) -> str:
        """Text that became certain. With ``may_stop`` off, stop strings that end here are ignored."""
        if self._is_whole and type(piece) is str:
            text = piece
        else:
            text = self._decoder.decode(piece.encode() if isinstance(piece, str) else piece)
            self._is_whole = not self._decoder.getstate()[0]
        if self._stops is None:
            return text
        seen = self._stops.see(self._state, text, may_stop)
        self._state = seen.state
        if not seen.state and not self._held:
            return text
        return self._hold(self._held + text, seen, len(self._held))

    def flush(self) -> str:
        """The rest: the generation is over, so nothing held back can become a stop string any more."""
        if self.stop_string is not None:
            return ""
        text = self.feed(self._decoder.decode(b"", final=True))
        text, self._held = text + self._held, ""
        return text

    def _hold(self, text: str, seen: Seen, num_held: int) -> str:
        """All of ``text`` but what must not be shown, or not yet."""
        if seen.stop is not None:
            self.stop_string, self._held = seen.stop, ""
            return text[: num_held + seen.end - (0 if self._keeps_stop else len(seen.stop))]
        split = len(text) - seen.depth
        self._held = text[split:]
        return text[:split]
