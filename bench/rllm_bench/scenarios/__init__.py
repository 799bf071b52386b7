"""Scenarios: what is asked of a server, and in which order. One file each; a file here is known by its name.

A scenario says which prompts there are (`unit`: a pure function of a spec, a vocabulary and an index), how
they are played over the one client (`play`; without it, by the load's closed or open loop), and which
figures of its own its records give.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from rllm_bench.records.cells import WorkloadSpec
from rllm_bench.records.vocabulary import Vocabulary
from rllm_bench.scenarios.base import Scenario, Stage, Workload

__all__ = ["Scenario", "Stage", "UnknownScenario", "Workload", "find", "known", "workload"]


class UnknownScenario(ValueError):
    """No file of this package defines it."""


@cache
def known() -> dict[str, Scenario]:
    """By name, in the order of their files."""
    modules = (
        importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)
    )
    scenarios = [one for module in modules for one in getattr(module, "SCENARIOS", ())]
    return {one.name: one for one in scenarios}


def find(name: str) -> Scenario:
    try:
        return known()[name]
    except KeyError:
        raise UnknownScenario(f"no scenario {name!r}; there are {', '.join(known())}") from None


def workload(spec: WorkloadSpec, vocabulary: Vocabulary) -> Workload:
    """
    Raises:
        UnknownScenario: its kind is none.
    """
    return Workload(find(spec.kind), spec, vocabulary)
