"""Who holds which cells of the KV cache: an exact account kept beside llama.cpp's own, which cannot be asked.

A cell belongs to every sequence that has its token; it is free when the last of them lets go. Lengths are
tokens; one token takes one cell. `check` recomputes an account; it raises AssertionError where one differs.
"""

from __future__ import annotations

from typing import TypeAlias


class _Span:
    """A run of cells. ``refs`` counts the sequences that end here and the spans that follow."""

    __slots__ = ("length", "parent", "refs")

    def __init__(self, parent: _Span | None, length: int, refs: int) -> None:
        self.parent = parent
        self.length = length
        self.refs = refs


class UnifiedLedger:
    """One pool of cells; a copied prefix shares its cells with the source."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._tails: dict[int, _Span] = {}
        self._lengths: dict[int, int] = {}

    @property
    def used(self) -> int:
        return self._used

    @property
    def total(self) -> int:
        return self._total

    @property
    def free(self) -> int:
        return self._total - self._used

    def room(self, seq: int) -> int:
        return self.free

    def length(self, seq: int) -> int:
        return self._lengths.get(seq, 0)

    def append(self, seq: int, count: int) -> None:
        if count <= 0:
            return
        tail = self._tails.get(seq)
        if tail is not None and tail.refs == 1:
            tail.length += count
        else:  # the reference of the sequence becomes that of the new span
            self._tails[seq] = _Span(tail, count, 1)
        self._used += count
        self._lengths[seq] = self.length(seq) + count

    def copy(self, src: int, dst: int, length: int) -> None:
        if dst in self._tails:
            raise ValueError(f"sequence {dst} is not empty")
        if not 0 <= length <= self.length(src):
            raise ValueError(f"sequence {src} holds {self.length(src)} tokens, not {length}")
        if length == 0:
            return
        span, end = self._tails[src], self.length(src)
        while end - span.length >= length:
            end -= span.length
            span = _parent(span)
        if end > length:
            span = _split(span, span.length - (end - length))
        span.refs += 1
        self._tails[dst] = span
        self._lengths[dst] = length

    def truncate(self, seq: int, length: int) -> None:
        tail, end = self._tails.get(seq), self.length(seq)
        if tail is None or length >= end:
            return
        while tail is not None and end - tail.length >= length:
            end -= tail.length
            parent = tail.parent
            if parent is not None:
                parent.refs += 1
            self._release(tail)
            tail = parent
        if tail is not None and end > length:
            keep = tail.length - (end - length)
            if tail.refs == 1:
                self._used -= tail.length - keep
                tail.length = keep
            else:
                upper = _split(tail, keep)
                upper.refs += 1
                tail.refs -= 1
                tail = upper
        if tail is None:
            del self._tails[seq]
            self._lengths.pop(seq, None)
        else:
            self._tails[seq] = tail
            self._lengths[seq] = length

    def _release(self, span: _Span) -> None:
        current: _Span | None = span
        while current is not None:
            current.refs -= 1
            if current.refs:
                return
            self._used -= current.length
            current = current.parent

    def check(self) -> None:
        spans: dict[int, tuple[_Span, int]] = {}
        for seq, tail in self._tails.items():
            length, span, fresh = 0, tail, True
            _count(spans, span)
            while True:
                length += span.length
                if span.parent is None:
                    break
                fresh = fresh and spans[id(span)][1] == 1
                if fresh:
                    _count(spans, span.parent)
                span = span.parent
            assert length == self._lengths[seq], (seq, length, self._lengths[seq])
        assert self._used == sum(span.length for span, _ in spans.values()), self._used
        assert all(span.refs == refs for span, refs in spans.values())
        assert 0 <= self._used <= self._total


def _count(spans: dict[int, tuple[_Span, int]], span: _Span) -> None:
    spans[id(span)] = (span, spans.get(id(span), (span, 0))[1] + 1)


def _parent(span: _Span) -> _Span:
    if span.parent is None:
        raise RuntimeError("a sequence is longer than its spans")
    return span.parent


def _split(span: _Span, keep: int) -> _Span:
    """Cut a span after ``keep`` cells; returns the upper part, which the lower one refers to."""
    upper = _Span(span.parent, keep, 1)
    span.parent = upper
    span.length -= keep
    return upper


class SplitLedger:
    """One stream of cells per sequence; nothing is shared, a copied prefix takes its own cells."""

    def __init__(self, num_sequences: int, per_sequence: int) -> None:
        self._lengths = [0] * num_sequences
        self._per_sequence = per_sequence
        self._used = 0

    @property
    def used(self) -> int:
        return self._used

    @property
    def total(self) -> int:
        return len(self._lengths) * self._per_sequence

    @property
    def free(self) -> int:
        return self.total - self._used

    def room(self, seq: int) -> int:
        return self._per_sequence - self._lengths[seq]

    def length(self, seq: int) -> int:
        return self._lengths[seq]

    def append(self, seq: int, count: int) -> None:
        self._lengths[seq] += count
        self._used += count

    def copy(self, src: int, dst: int, length: int) -> None:
        if self._lengths[dst]:
            raise ValueError(f"sequence {dst} is not empty")
        if not 0 <= length <= self._lengths[src]:
            raise ValueError(f"sequence {src} holds {self._lengths[src]} tokens, not {length}")
        self.append(dst, length)

    def truncate(self, seq: int, length: int) -> None:
        dropped = max(0, self._lengths[seq] - length)
        self._lengths[seq] -= dropped
        self._used -= dropped

    def check(self) -> None:
        assert self._used == sum(self._lengths)
        assert all(0 <= length <= self._per_sequence for length in self._lengths)


CellLedger: TypeAlias = UnifiedLedger | SplitLedger
