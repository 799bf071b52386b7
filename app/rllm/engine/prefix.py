"""Which sequence already holds the beginning of a prompt: a radix tree over token ids.

Every sequence with content is in the tree, running or idle, from the moment its prompt is admitted. How
much of it is really computed is the caller's knowledge (`computed`), so one walk answers two questions:
what can be reused now, and what could be reused soon if one waited for a prefill that is under way.
Sequences with different salts never meet: each salt has a tree of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Match:
    """``seq`` holds the first ``length`` tokens; somebody will hold ``soon_length`` of them, at least as
    many. A length of 0 comes with sequence -1."""

    seq: int = -1
    length: int = 0
    soon_length: int = 0


NO_MATCH = Match()


class _Node:
    """An edge of the tree: ``tokens`` after the parent's, and every sequence that has all of them."""

    __slots__ = ("children", "parent", "seqs", "tokens")

    def __init__(self, parent: _Node | None, tokens: list[int]) -> None:
        self.parent = parent
        self.tokens = tokens
        self.children: dict[int, _Node] = {}
        self.seqs: set[int] = set()


class PrefixIndex:
    def __init__(self) -> None:
        self._roots: dict[str, _Node] = {}
        self._ends: dict[int, _Node] = {}
        self._salts: dict[int, str] = {}
        self._lengths: dict[int, int] = {}

    def __contains__(self, seq: int) -> bool:
        return seq in self._ends

    def length(self, seq: int) -> int:
        return self._lengths.get(seq, 0)

    def salt(self, seq: int) -> str:
        return self._salts[seq]

    def tokens(self, seq: int) -> list[int]:
        """What ``seq`` holds."""
        edges: list[list[int]] = []
        node: _Node | None = self._ends[seq]
        while node is not None:
            edges.append(node.tokens)
            node = node.parent
        return [token for edge in reversed(edges) for token in edge]

    def insert(self, seq: int, tokens: Sequence[int], salt: str = "") -> None:
        """``seq`` is not in the index before."""
        if seq in self._ends:
            raise ValueError(f"sequence {seq} is in the index already")
        self._ends[seq] = self._roots.setdefault(salt, _Node(None, []))
        self._salts[seq] = salt
        self._lengths[seq] = 0
        self.extend(seq, tokens)

    def extend(self, seq: int, tokens: Sequence[int]) -> None:
        """Append tokens to what ``seq`` holds."""
        node, rest = self._ends[seq], list(tokens)
        self._lengths[seq] += len(rest)
        while rest:
            child = node.children.get(rest[0])
            if child is None:
                if node.seqs == {seq} and not node.children:
                    node.tokens.extend(rest)
                    break
                child = _Node(node, rest)
                node.children[rest[0]] = child
                common = len(rest)
            else:
                common = _common(child.tokens, rest, 0)
                if common < len(child.tokens):
                    child = _split(child, common)
            child.seqs.add(seq)
            node, rest = child, rest[common:]
        self._ends[seq] = node

    def truncate(self, seq: int, length: int) -> None:
        """Forget the tokens of ``seq`` from ``length`` on. It stays in the index."""
        node, end = self._ends[seq], self._lengths[seq]
        while end > length:
            start = end - len(node.tokens)
            if start < length:
                _split(node, length - start)  # the lower part stays ``node``, and goes
            node.seqs.discard(seq)
            parent = node.parent
            if parent is None:
                raise RuntimeError(f"sequence {seq} is shorter in the tree than {length}")
            if not node.seqs:
                del parent.children[node.tokens[0]]
            end = max(start, length)
            node = parent
        self._ends[seq] = node
        self._lengths[seq] = min(self._lengths[seq], length)

    def remove(self, seq: int) -> None:
        """Does nothing for a sequence that is not in the index."""
        if seq not in self._ends:
            return
        self.truncate(seq, 0)
        salt = self._salts.pop(seq)
        del self._ends[seq], self._lengths[seq]
        if not self._roots[salt].children and salt not in self._salts.values():
            del self._roots[salt]

    def match(self, tokens: Sequence[int], computed: Callable[[int], int], salt: str = "") -> Match:
        """The longest beginning of ``tokens`` that some sequence holds, now and soon.

        Args:
            computed: how many tokens of an indexed sequence have their cells.
        """
        path = self._walk(list(tokens), salt)
        if not path:
            return NO_MATCH
        best_seq, best, best_extent = -1, 0, (0, 0)
        lengths = self._lengths
        for node, depth in reversed(path):
            if best >= depth:
                break
            for seq in node.seqs:  # hundreds, where everybody has the same system prompt
                usable = computed(seq)
                if usable > depth:
                    usable = depth
                if not usable or usable < best:
                    continue
                extent = (lengths[seq], seq)  # the least beyond the match can be continued in place
                if usable > best or extent < best_extent:
                    best_seq, best, best_extent = seq, usable, extent
        return Match(best_seq, best, path[-1][1])

    def _walk(self, tokens: list[int], salt: str) -> list[tuple[_Node, int]]:
        node, depth = self._roots.get(salt), 0
        path: list[tuple[_Node, int]] = []
        while node is not None and depth < len(tokens):
            child = node.children.get(tokens[depth])
            if child is None:
                break
            common = _common(child.tokens, tokens, depth)
            depth += common
            path.append((child, depth))
            node = child if common == len(child.tokens) else None
        return path

    def check(self) -> None:
        """Recompute the tree's promises; raises AssertionError where one is broken."""
        members: dict[int, int] = {}
        for salt, root in self._roots.items():
            stack = [(root, 0)]
            while stack:
                node, depth = stack.pop()
                for first, child in node.children.items():
                    assert child.tokens
                    assert child.tokens[0] == first
                    assert child.parent is node
                    assert child.seqs
                    assert node is root or child.seqs <= node.seqs
                    for seq in child.seqs:
                        assert self._salts[seq] == salt
                        members[seq] = members.get(seq, 0) + len(child.tokens)
                    stack.append((child, depth + len(child.tokens)))
        for seq, length in self._lengths.items():
            assert members.pop(seq, 0) == length, (seq, length)
            end = self._ends[seq]
            assert not any(seq in child.seqs for child in end.children.values())
        assert not members, f"sequences in the tree that nobody owns: {members}"


def _common(edge: list[int], tokens: list[int], start: int) -> int:
    """Length of the common beginning of ``edge`` and ``tokens[start:]``; C-speed slices, not a loop."""
    limit = min(len(edge), len(tokens) - start)
    if edge[:limit] == tokens[start : start + limit]:
        return limit
    low, high = 0, limit - 1
    while low < high:
        middle = (low + high + 1) // 2
        if edge[low:middle] == tokens[start + low : start + middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _split(node: _Node, keep: int) -> _Node:
    """Cut an edge after ``keep`` tokens; returns the new upper node."""
    parent = node.parent
    if parent is None:
        raise RuntimeError("the root has no edge to split")
    upper = _Node(parent, node.tokens[:keep])
    upper.seqs = set(node.seqs)
    parent.children[upper.tokens[0]] = upper
    node.tokens = node.tokens[keep:]
    node.parent = upper
    upper.children[node.tokens[0]] = node
    return upper
