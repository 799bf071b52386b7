"""When a prefix is stored outside the KV cache, and when it is brought back.

Storing copies out of the context, which only the engine's thread can do. It is free while nobody computes.
Beside computing it may take a share of the time, saved up for a short pause at most, and is left out where
that is not enough. What is stored must be worth it: the time it would spare, weighed with how often stored
prefixes were asked for lately, against the time it takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rllm.engine.moving import MovePolicy
from rllm.engine.port import Op, Restore, StepResult, StoredPrefix
from rllm.engine.store import Found, Place, PrefixStore
from rllm.engine.tuning import DEFAULT, Tuning
from rllm.engine.types import ModelInfo


class PrefixOffload:
    def __init__(
        self,
        info: ModelInfo,
        moves: MovePolicy,
        ops: list[Op],
        stored: Iterable[StoredPrefix] = (),
        tuning: Tuning = DEFAULT,
    ) -> None:
        """
        Args:
            ops: where everything the backend must do is appended.
        """
        cell_bytes = info.kv_bytes / max(1, info.kv_cells)
        self.store = PrefixStore(info.store_bytes, info.store_disk_bytes, cell_bytes, ops, stored)
        self._moves = moves
        self._tuning = tuning
        self._ops = ops
        self._allowance_s = 0.0
        self._saves = self._returns = 0.0
        self._pinned = -1

    # --- storing --------------------------------------------------------------------------------

    def save(self, seq: int, tokens: Sequence[int], salt: str, *, loss: int, quiet: bool) -> None:
        """``seq`` holds ``tokens``, of which the last ``loss`` may be gone soon: store them, if that pays.

        Args:
            quiet: nobody computes in this step.
        """
        gain = min(loss, len(tokens) - self.store.covered(tokens, salt))
        num_bytes = self.store.estimate(len(tokens))
        if gain <= 0 or not self.store.fits(num_bytes):
            return
        if not self._moves.save_pays(gain, num_bytes, self._chance()):
            self._saves *= self._tuning.return_memory
            self._returns *= self._tuning.return_memory
            return
        seconds = 0.0 if quiet else self._moves.save_s(num_bytes)
        if seconds > self._allowance_s:
            return
        if self.store.save(seq, tokens, salt, keep=self._pinned):
            self._allowance_s -= seconds
            self._saves += 1

    def _chance(self) -> float:
        """How likely a prefix that is stored now is restored. It returns to the first estimate while nothing
        is stored."""
        prior = self._tuning.return_prior
        return min(1.0, (self._returns + self._tuning.return_chance * prior) / (self._saves + prior))

    # --- bringing back --------------------------------------------------------------------------

    def find(self, tokens: Sequence[int], salt: str, resident: int, spared_cells: int) -> Found | None:
        """A stored prefix that beats the ``resident`` tokens, which would cost a copy of ``spared_cells``."""
        found = self.store.find(tokens, salt)
        if found is None or found.length <= resident:
            return None
        pays = self._moves.restore_pays(
            found.length - resident,
            found.num_bytes,
            from_disk=found.place is Place.DISK,
            spared_cells=spared_cells,
        )
        return found if pays else None

    def is_coming(self, found: Found) -> bool:
        """The prefix is on its way from disk, or is from now on: worth waiting for."""
        return found.place is Place.LOADING or (found.place is Place.DISK and self.store.load(found.key))

    def pin(self, key: int) -> None:
        """``key`` is about to be restored: until the next `pin` it makes no room for others."""
        self._pinned = key

    def restore(self, found: Found, seq: int) -> None:
        self.store.touch(found.key)
        self._returns += 1
        self._ops.append(Restore(found.key, seq, found.length))

    # --- hearing --------------------------------------------------------------------------------

    def heard(self, result: StepResult) -> None:
        seconds = result.execute_s + result.sample_s
        allowance_s = self._allowance_s + self._tuning.save_share * seconds
        self._allowance_s = min(self._tuning.save_pause_s, allowance_s)
        self._pinned = -1
        if result.store is not None:
            self.store.heard(result.store)
