"""What is tried where a worker crashes before it is ready: one way of starting it after the other."""

from __future__ import annotations

from collections.abc import Mapping

from rllm.backends.options import Fallback
from rllm.errors import StartError
from rllm.workers.frames import WorkerSpec


class Ways:
    """The ways to start one worker, from the one that was asked for to the safest."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._name = spec.name
        self._left = iter(_different(spec))
        self._options: dict[str, str] = {}
        self._faults: list[str] = []
        self._is_certain = True

    def apply(self, spec: WorkerSpec) -> WorkerSpec:
        return spec.with_options(self._options) if self._options else spec

    @property
    def fallback(self) -> Fallback | None:
        """The way that is tried now, and the fault that it avoids. None: the one that was asked for."""
        if not self._options:
            return None
        return Fallback(options=self._options, reason=self._faults[0], certain=self._is_certain)

    @property
    def words(self) -> str:
        return in_words(self._options) if self._options else "as it was asked for"

    def failed(self, fault: str, *, certain: bool = True) -> None:
        """Go on to the next way. ``certain`` is False where it only took too long.

        Raises:
            StartError: there is none.
        """
        self._is_certain &= certain
        fault = fault.removeprefix(f"{self._name} ")
        self._faults.append(f"with {self.words}, {fault}" if self._options else fault)
        following = next(self._left, None)
        if following is None:
            raise StartError(
                f"{self._name} does not compute on this machine: {'; '.join(self._faults)}. "
                "See RUNBOOK.md, 'A model that does not compute'"
            )
        self._options = following


def _different(spec: WorkerSpec) -> list[dict[str, str]]:
    """The fall-backs that change something, each outcome once."""
    tried, found = [spec], []
    for options in spec.fallbacks:
        if (other := spec.with_options(options)) not in tried:
            tried.append(other)
            found.append(options)
    return found


def in_words(options: Mapping[str, object]) -> str:
    """Options as an operator writes them on the command line."""
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
