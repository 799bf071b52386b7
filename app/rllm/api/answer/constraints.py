"""What the answers of a request must match."""

from __future__ import annotations

from dataclasses import dataclass

from rllm.engine.constraint import Constraint
from rllm.errors import ConstraintRefused


@dataclass(frozen=True, slots=True)
class Asked:
    constraint: Constraint
    param: str
    """The field that asks for it."""

    def check(self) -> None:
        """Compile it: up to a second, for a thread.

        Raises:
            ConstraintRefused: it cannot be enforced.
        """
        from rllm.backends.constraint.compiler import check  # loads numpy, which llama.cpp must precede

        try:
            check(self.constraint)
        except ConstraintRefused as refused:
            raise ConstraintRefused(refused.path, refused.reason, param=self.param) from None
