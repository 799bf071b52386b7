"""What an instance probably has in its cache, as seen from outside: bounded, approximate, cheap.

Prompts are cut into blocks; a block's key is the hash of itself and everything before it, so that a set of
keys is a radix tree without nodes. The worker's own index is exact; being wrong here costs time, not truth.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from rllm.engine.types import EngineRequest

BLOCK = 32

BlockKeys = tuple[int, ...]
"""One key for each whole block of a prompt, from its beginning on."""


class PrefixMap:
    """Keeps the ``max_blocks`` blocks that were used last."""

    def __init__(self, max_blocks: int) -> None:
        self._max_blocks = max_blocks
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def match(self, keys: BlockKeys, more: AbstractSet[int] = frozenset()) -> int:
        """How many leading tokens are probably resident, once ``more`` is, too; a multiple of `BLOCK`."""
        if not self._max_blocks:  # nothing is ever kept, neither what is there nor what will be
            return 0
        count = 0
        for key in keys:
            if key not in self._blocks and key not in more:
                break
            count += BLOCK
        return count

    def add(self, keys: BlockKeys) -> None:
        for key in reversed(keys):  # the beginning is the most recently used: it is the last to go
            self._blocks[key] = None
            self._blocks.move_to_end(key)
        while len(self._blocks) > self._max_blocks:
            self._blocks.popitem(last=False)

    def clear(self) -> None:
        self._blocks.clear()


def block_keys(tokens: Sequence[int], salt: str = "") -> BlockKeys:
    key = hash(salt)
    keys = []
    for end in range(BLOCK, len(tokens) + 1, BLOCK):
        key = hash((key, tuple(tokens[end - BLOCK : end])))
        keys.append(key)
    return tuple(keys)


def prefixes_of(requests: Sequence[EngineRequest]) -> list[BlockKeys]:
    """The keys of each request's prompt. Choices of one prompt follow each other and share them."""
    found: list[BlockKeys] = []
    last: tuple[tuple[int, ...], str] | None = None
    for request in requests:
        salt = request.salt
        if last is None or last[0] is not request.prompt or last[1] != salt:
            found.append(block_keys(request.prompt, salt))
            last = (request.prompt, salt)
        else:
            found.append(found[-1])
    return found
