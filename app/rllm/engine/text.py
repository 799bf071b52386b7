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

    def feed(self, char: str) -> str | None:
        """Take one character; returns the longest stop string that ends with it, if any."""
        self._state = self._step(self._state, char)
        return self._match[self._state]


class TextAssembler:
    """The visible text of one request, in pieces. `feed` tokens' bytes, `flush` at the end."""

    def __init__(self, stops: tuple[str, ...] = ()) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._matcher = StopMatcher(stops) if stops else None
        self._held = ""
        self.stop_string: str | None = None
        """The stop string that ended the text, once one did. Nothing is accepted afterwards."""

    def feed(self, piece: bytes, *, may_stop: bool = True) -> str:
        """Text that became certain. With ``may_stop`` off, stop strings that end here are ignored."""
        return self._take(self._decoder.decode(piece), may_stop)

    def flush(self) -> str:
        """The rest: the generation is over, so nothing held back can become a stop string any more."""
        if self.stop_string is not None:
            return ""
        text = self._take(self._decoder.decode(b"", final=True), may_stop=True)
        text, self._held = text + self._held, ""
        return text

    def _take(self, text: str, may_stop: bool) -> str:
        if self._matcher is None:
            return text
        start = len(self._held)
        text = self._held + text
        for index in range(start, len(text)):
            stop = self._matcher.feed(text[index])
            if stop is not None and may_stop:
                self.stop_string = stop
                self._held = ""
                return text[: index + 1 - len(stop)]
        split = len(text) - self._matcher.depth
        self._held = text[split:]
        return text[:split]
