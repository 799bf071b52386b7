"""What an instance probably has in its cache, as seen from outside: bounded, approximate, cheap.

Prompts are cut into blocks; a block's key is the hash of itself and everything before it, so that a set of
keys is a radix tree without nodes. The worker's own index is exact; being wrong here costs time, not truth.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

BLOCK = 32


class PrefixMap:
    """Keeps the ``max_blocks`` blocks that were used last."""

    def __init__(self, max_blocks: int) -> None:
        self._max_blocks = max_blocks
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def match(self, tokens: Sequence[int], salt: str = "") -> int:
        """How many leading tokens are probably resident; a multiple of `BLOCK`."""
        count = 0
        for key in _keys(tokens, salt):
            if key not in self._blocks:
                break
            count += BLOCK
        return count

    def add(self, tokens: Sequence[int], salt: str = "") -> None:
        keys = list(_keys(tokens, salt))
        for key in reversed(keys):  # the beginning is the most recently used: it is the last to go
            self._blocks[key] = None
            self._blocks.move_to_end(key)
        while len(self._blocks) > self._max_blocks:
            self._blocks.popitem(last=False)

    def clear(self) -> None:
        self._blocks.clear()


def _keys(tokens: Sequence[int], salt: str) -> Iterator[int]:
    key = hash(salt)
    for end in range(BLOCK, len(tokens) + 1, BLOCK):
        key = hash((key, tuple(tokens[end - BLOCK : end])))
        yield key
