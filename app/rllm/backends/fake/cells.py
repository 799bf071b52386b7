"""The fake KV cache: which token each sequence holds at which position, and how many cells that takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence


class ContractBroken(AssertionError):
    """A plan asked for what the port forbids. llama.cpp would fail or, worse, abort the process."""


class Cells:
    """Unified: one pool, cells are shared after a copy. Split: a pool per sequence, copies are copies."""

    def __init__(self, *, num_sequences: int, num_cells: int, unified: bool) -> None:
        self.unified = unified
        self.num_cells = num_cells
        self._per_sequence = num_cells // num_sequences
        self._next_cell = 0
        self._token_of: dict[int, int] = {}
        self._held: list[list[int]] = [[] for _ in range(num_sequences)]
        """Cell ids by position."""

    def tokens(self, seq: int) -> list[int]:
        return [self._token_of[cell] for cell in self._of(seq)]

    def length(self, seq: int) -> int:
        return len(self._of(seq))

    @property
    def used(self) -> int:
        return len({cell for held in self._held for cell in held})

    def truncate(self, seq: int, length: int) -> None:
        if length < 0:
            raise ContractBroken(f"sequence {seq} truncated to {length}")
        del self._of(seq)[length:]
        self._forget_unheld()

    def copy_prefix(self, src: int, dst: int, length: int) -> None:
        if self._of(dst):
            raise ContractBroken(
                f"a prefix copied to sequence {dst}, which holds {len(self._of(dst))} tokens"
            )
        if not 0 < length <= len(self._of(src)):
            raise ContractBroken(f"{length} of {len(self._of(src))} tokens copied from sequence {src}")
        shared = self._of(src)[:length]
        self._held[dst] = (
            shared if self.unified else [self._new_cell(self._token_of[cell]) for cell in shared]
        )

    def has_room(self, wanted: Mapping[int, int]) -> bool:
        """Whether the sequences can grow by these numbers of tokens."""
        if self.unified:
            return self.used + sum(wanted.values()) <= self.num_cells
        return all(self.length(seq) + count <= self._per_sequence for seq, count in wanted.items())

    def append(self, seq: int, tokens: Sequence[int], start: int) -> None:
        if start != self.length(seq):
            raise ContractBroken(f"sequence {seq} holds {self.length(seq)} tokens; a chunk starts at {start}")
        self._of(seq).extend(self._new_cell(token) for token in tokens)

    def check(self) -> None:
        """Every account recomputed from scratch."""
        counts = Counter(cell for held in self._held for cell in held)
        if set(counts) != set(self._token_of):
            raise ContractBroken("cells leaked")
        if not self.unified and any(count > 1 for count in counts.values()):
            raise ContractBroken("split sequences share a cell")

    def _of(self, seq: int) -> list[int]:
        if not 0 <= seq < len(self._held):
            raise ContractBroken(f"sequence {seq} is not in 0..{len(self._held) - 1}")
        return self._held[seq]

    def _new_cell(self, token: int) -> int:
        self._next_cell += 1
        self._token_of[self._next_cell] = token
        return self._next_cell

    def _forget_unheld(self) -> None:
        held = {cell for cells in self._held for cell in cells}
        self._token_of = {cell: token for cell, token in self._token_of.items() if cell in held}
