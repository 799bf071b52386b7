"""From token pieces to text a client may see: whole characters only, and nothing of a stop string.

Two things are held back: bytes of an unfinished UTF-8 character, and text that may turn out to be the
beginning of a stop string. Both cost O(1) per character, however many stop strings there are.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable


class StopMatcher:
    """Aho-Corasick automaton over characters (Aho and Corasick, CACM 18(6), 1975).

    After each character `depth` is the length of the longest suffix seen that begins some stop string,
    which is exactly what has to be held back.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._next: list[dict[str, int]] = [{}]
        self._fail: list[int] = [0]
        self._depth: list[int] = [0]
        self._match: list[str | None] = [None]
        for stop in stops:
            self._add(stop)
        self._link()
        self._firsts = frozenset(self._next[0])
        self._delta: dict[tuple[int, str], int] = {}
        """Transitions seen so far, so that a common one costs one look-up."""
        self._state = 0

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

    @property
    def depth(self) -> int:
        return self._depth[self._state]

    def cannot_begin(self, text: str) -> bool:
        """Nothing is held back and no character of ``text`` begins a stop string: it is safe to show."""
        return self._state == 0 and self._firsts.isdisjoint(text)

    def find(self, text: str, start: int, *, accept: bool) -> tuple[int, str] | None:
        """Take ``text[start:]``; the end and the name of the first stop string that is complete, if any.

        With ``accept`` off all of it is taken and nothing is found.
        """
        state, delta = self._state, self._delta
        for index in range(start, len(text)):
            key = (state, text[index])
            following = delta.get(key)
            if following is None:
                following = delta[key] = self._step(*key)
            state = following
            if state and accept and self._match[state] is not None:
                self._state = state
                return index + 1, self._match[state] or ""
        self._state = state
        return None


class TextAssembler:
    """The visible text of one request, in pieces. `feed` tokens' bytes, `flush` at the end."""

    def __init__(self, stops: tuple[str, ...] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._matcher = StopMatcher(stops) if stops else None
        self._is_whole = True
        """The decoder holds no part of a character back."""
        self._held = ""
        self.stop_string: str | None = None
        """The stop string that ended the text, once one did. Nothing is accepted afterwards."""

    def feed(self, piece: bytes, *, may_stop: bool = True) -> str:
        """Text that became certain. With ``may_stop`` off, stop strings that end here are ignored."""
        if self._is_whole and piece.isascii():
            return self._take(piece.decode("ascii"), may_stop)
        text = self._decoder.decode(piece)
        self._is_whole = not self._decoder.getstate()[0]
        return self._take(text, may_stop)

    def flush(self) -> str:
        """The rest: the generation is over, so nothing held back can become a stop string any more."""
        if self.stop_string is not None:
            return ""
        text = self._take(self._decoder.decode(b"", final=True), may_stop=True)
        text, self._held = text + self._held, ""
        return text

    def _take(self, text: str, may_stop: bool) -> str:
        matcher = self._matcher
        if matcher is None or matcher.cannot_begin(text):
            return text
        start = len(self._held)
        text = self._held + text
        found = matcher.find(text, start, accept=may_stop)
        if found is not None:
            end, self.stop_string = found
            self._held = ""
            return text[: end - len(self.stop_string)]
        split = len(text) - matcher.depth
        self._held = text[split:]
        return text[:split]
