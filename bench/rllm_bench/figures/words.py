"""How a report words numbers and machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rllm_bench.figures.stats import Estimate


def number(value: float | None, digits: int = 3) -> str:
    """About ``digits`` significant figures, never in scientific notation."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    decimals, bound = 0, 10.0 ** (digits - 1)
    while size < bound and decimals < 8:
        decimals += 1
        bound /= 10
    return f"{value:.{decimals}f}"


def estimate(found: Estimate | None, *, spread: bool = False) -> str:
    """The value, its interval where there is one, and on request what the repeats ranged over."""
    if found is None:
        return "–"
    text = number(found.value)
    if found.interval is not None:
        text += f" [{number(found.interval.low)}, {number(found.interval.high)}]"
    if spread and found.spread is not None:
        text += f" ({number(found.spread.low)}–{number(found.spread.high)})"
    return text


def machine(environment: dict[str, Any]) -> str:
    cpu = environment["cpu"]
    cores = cpu["cores_usable"] or cpu["cores_logical"]
    memory = f"{environment['memory_bytes'] / 2**30:.0f} GiB"
    cards = [card["name"] for card in environment["gpus"]]
    if cards:
        count = f"{len(cards)} × " if len(cards) > 1 else ""
        return f"{count}{cards[0]}, {cores} cores of {cpu['model']}, {memory}"
    return f"{cores} cores of {cpu['model']}, {memory}, no GPU"


def slo(name: str, limits: Mapping[str, float]) -> str:
    return f"{name} ({limits_of(limits)})"


def limits_of(limits: Mapping[str, float]) -> str:
    return ", ".join(f"{key.upper()} ≤ {number(limit)} ms" for key, limit in limits.items())


def listed(names: Sequence[str]) -> str:
    """As a sentence names them: a; a and b; a, b and c."""
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), *names[-1:]])


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
