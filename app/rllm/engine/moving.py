"""Whether moving tokens pays: copies, saves and restores take time, and so does computing them again.

Measured times decide (`rllm.engine.times`), constants until there are any.
"""

from __future__ import annotations

from rllm.engine.times import StepTimes
from rllm.engine.tuning import DEFAULT, Tuning


class MovePolicy:
    """Cells are tokens that are moved, wanted or not; bytes are those of a stored prefix."""

    def __init__(self, times: StepTimes, tuning: Tuning = DEFAULT) -> None:
        self._times = times
        self._tuning = tuning

    def copy_pays(self, reused: int, moved_cells: int) -> bool:
        """Copy ``moved_cells`` between streams rather than compute ``reused`` tokens again."""
        token_s, copy = self._times.token_s, self._times.copy_cell
        if token_s is None or not copy.is_known:
            return reused >= self._tuning.min_copy
        if copy.seconds(moved_cells) < reused * token_s:
            return True
        copy.is_refused = True
        return False

    def continuing_pays(self, kept: int, loss: int, moved_cells: int) -> bool:
        """Cut ``loss`` tokens off an idle prefix and go on after the ``kept`` ones, rather than copy it."""
        token_s, copy = self._times.token_s, self._times.copy_cell
        if loss == 0:
            return True
        if token_s is None or not copy.is_known:
            return loss * self._tuning.max_loss <= kept
        return loss * token_s * self._tuning.return_chance <= copy.seconds(moved_cells)

    def restore_pays(self, gain: int, num_bytes: int, *, from_disk: bool, spared_cells: int) -> bool:
        """Restore a stored prefix which is ``gain`` tokens longer than the best resident one.

        Args:
            spared_cells: what using the resident one would copy between streams.
        """
        times = self._times
        if times.token_s is None or not times.restore_byte.is_known:
            return gain >= self._tuning.min_restore
        spared_s = times.copy_cell.seconds(spared_cells)
        if self.restore_s(num_bytes, from_disk=from_disk) - spared_s < gain * times.token_s:
            return True
        (times.load_byte if from_disk else times.restore_byte).is_refused = True
        return False

    def save_pays(self, gain: int, num_bytes: int, chance: float) -> bool:
        """Store a prefix that is asked for again with ``chance``; ``gain`` tokens would be lost otherwise."""
        times = self._times
        if times.token_s is None:
            return gain >= self._tuning.min_restore
        spared_s = gain * times.token_s - self.restore_s(num_bytes, from_disk=False)
        if self.save_s(num_bytes) < chance * spared_s:
            return True
        times.save_byte.is_refused = times.restore_byte.is_refused = True
        return False

    def save_s(self, num_bytes: int) -> float:
        return self._times.save_byte.seconds(num_bytes)

    def restore_s(self, num_bytes: int, *, from_disk: bool) -> float:
        load_s = self._times.load_byte.seconds(num_bytes) if from_disk else 0.0
        return self._times.restore_byte.seconds(num_bytes) + load_s
