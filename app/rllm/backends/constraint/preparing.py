"""Compiling beside the steps of a worker."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from rllm.backends.constraint.compiler import Compiler
from rllm.backends.constraint.matcher import TokenMatcher
from rllm.engine.constraint import Constraint
from rllm.engine.port import Vocabulary


class Constraints:
    """The constraints of one model. The vocabulary is read when the first one comes."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._compiler: Compiler | None = None
        self._making = Lock()
        self._thread = ThreadPoolExecutor(1, "constraints")

    def prepare(self, constraint: Constraint) -> Future[None]:
        """Done once `matcher` does not block any more; fails with `ConstraintRefused`."""
        return self._thread.submit(self._compile, constraint)

    def matcher(self, constraint: Constraint) -> TokenMatcher:
        """For one answer; compiles where that was not prepared, or so long ago that it is forgotten.

        Raises:
            ConstraintRefused: see `Compiler.compile`.
        """
        return self._made().compile(constraint).matcher()

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _compile(self, constraint: Constraint) -> None:
        self._made().compile(constraint)

    def _made(self) -> Compiler:
        with self._making:
            if self._compiler is None:
                self._compiler = Compiler(self._vocabulary)
            return self._compiler
