"""What an attack is, and what came of it."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.attack import cases

if TYPE_CHECKING:
    from tests.attack.arena import Arena


@dataclass
class Outcome:
    """Of one run of a case."""

    kept: bool
    found: str
    """What happened, in a few words with the numbers."""
    figures: dict[str, float] = field(default_factory=dict)
    """Over several runs the report shows the median of each."""


@dataclass(frozen=True)
class Case:
    name: str
    """Unique."""
    entry: int
    """Which fault of the list in the report's folder it belongs to."""
    played: str
    promise: str
    before: str
    """What version 1c41d18 did."""
    play: Callable[[Arena], Awaitable[Outcome]]
    quick: bool = True
    """Seconds on the tiny model: it belongs to the everyday tests."""
    real: bool = False
    """Played on the real model by ``scripts/attack``, because the tiny one answers too fast to be disturbed."""


def all_cases() -> list[Case]:
    """Of every module in `tests.attack.cases`, by entry."""
    names = [module.name for module in pkgutil.iter_modules(cases.__path__)]
    modules = [importlib.import_module(f"{cases.__name__}.{name}") for name in names]
    found: list[Case] = [case for module in modules for case in module.CASES]
    doubled = {case.name for case in found if sum(case.name == other.name for other in found) > 1}
    if doubled:
        raise ValueError(f"two cases are called {min(doubled)}")
    return sorted(found, key=lambda case: (case.entry, case.name))
