"""What moving and computing tokens takes on this machine, learned while serving, and what therefore pays.

Every estimate is a running mean of what the backend measured. Before the first measurement a constant
decides. A way that is refused is not measured any more, therefore its estimate gets a little better with
every step that refused it: one that was wrong once (swapped memory, a busy disk) does not stay wrong.
"""

from __future__ import annotations

from rllm.engine.port import Effort, StepResult, StoreReport

MIN_COPY = 64
"""Until a copy between streams was measured: shorter prefixes are computed again."""
MAX_LOSS = 4
"""Until then, an idle prefix is continued in place when at most 1/MAX_LOSS of what is kept is cut off."""
MIN_RESTORE = 64
"""Until a restore was measured: it must save so many tokens."""
RETURN_CHANCE = 0.25
"""How likely what is cut off or dropped is asked for again, as long as nothing better is known."""
_MEMORY = 0.7
"""How much of the older measurements counts beside a new one."""
_DOUBT = 0.999


class _Rate:
    """Seconds per unit: a mean over the last few measurements, in which large moves count for more."""

    __slots__ = ("_amount", "_seconds", "is_refused")

    def __init__(self) -> None:
        self._amount = self._seconds = 0.0
        self.is_refused = False
        """In this step. It is doubted once, however often it was asked for."""

    @property
    def is_known(self) -> bool:
        return self._amount > 0

    def learn(self, effort: Effort) -> None:
        if self.is_refused:
            self._seconds *= _DOUBT
            self.is_refused = False
        if effort.amount > 0:
            self._amount = _MEMORY * self._amount + effort.amount
            self._seconds = _MEMORY * self._seconds + effort.seconds

    def seconds(self, amount: int) -> float:
        """0 where nothing was measured."""
        return self._seconds / self._amount * amount if self.is_known else 0.0


_NOTHING = StoreReport()


class Costs:
    """Cells are tokens that are moved, wanted or not; bytes are those of a stored prefix."""

    def __init__(self) -> None:
        self._prefill_token_s: float | None = None
        self._copy_cell_s = _Rate()
        self._save_byte_s = _Rate()
        self._restore_byte_s = _Rate()
        self._load_byte_s = _Rate()

    def learn(self, result: StepResult, prefill_token_s: float | None) -> None:
        """Take note of what a step moved; ``prefill_token_s`` is the newest estimate of computing a token."""
        self._prefill_token_s = prefill_token_s
        store = result.store or _NOTHING
        self._copy_cell_s.learn(result.copied)
        self._save_byte_s.learn(store.save)
        self._restore_byte_s.learn(store.restore)
        self._load_byte_s.learn(store.load)

    def copy_pays(self, reused: int, moved_cells: int) -> bool:
        """Copy ``moved_cells`` between streams rather than compute ``reused`` tokens again."""
        token_s, copy = self._prefill_token_s, self._copy_cell_s
        if token_s is None or not copy.is_known:
            return reused >= MIN_COPY
        if copy.seconds(moved_cells) < reused * token_s:
            return True
        copy.is_refused = True
        return False

    def continuing_pays(self, kept: int, loss: int, moved_cells: int) -> bool:
        """Cut ``loss`` tokens off an idle prefix and go on after the ``kept`` ones, rather than copy it."""
        token_s, copy = self._prefill_token_s, self._copy_cell_s
        if loss == 0:
            return True
        if token_s is None or not copy.is_known:
            return loss * MAX_LOSS <= kept
        return loss * token_s * RETURN_CHANCE <= copy.seconds(moved_cells)

    def restore_pays(self, gain: int, num_bytes: int, *, from_disk: bool, spared_cells: int) -> bool:
        """Restore a stored prefix which is ``gain`` tokens longer than the best resident one.

        Args:
            spared_cells: what using the resident one would copy between streams.
        """
        token_s, restore = self._prefill_token_s, self._restore_byte_s
        if token_s is None or not restore.is_known:
            return gain >= MIN_RESTORE
        seconds = self.restore_s(num_bytes, from_disk=from_disk) - self._copy_cell_s.seconds(spared_cells)
        if seconds < gain * token_s:
            return True
        (self._load_byte_s if from_disk else restore).is_refused = True
        return False

    def save_pays(self, gain: int, num_bytes: int, chance: float) -> bool:
        """Store a prefix that is asked for again with ``chance``; ``gain`` tokens would be lost otherwise."""
        if self._prefill_token_s is None:
            return gain >= MIN_RESTORE
        spared_s = gain * self._prefill_token_s - self.restore_s(num_bytes, from_disk=False)
        if self.save_s(num_bytes) < chance * spared_s:
            return True
        self._save_byte_s.is_refused = self._restore_byte_s.is_refused = True
        return False

    def save_s(self, num_bytes: int) -> float:
        return self._save_byte_s.seconds(num_bytes)

    def restore_s(self, num_bytes: int, *, from_disk: bool) -> float:
        load_s = self._load_byte_s.seconds(num_bytes) if from_disk else 0.0
        return self._restore_byte_s.seconds(num_bytes) + load_s
