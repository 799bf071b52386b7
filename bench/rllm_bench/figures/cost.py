"""What tokens cost on a machine that is paid by the hour."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Price:
    per_hour: float
    source: str
    """Where the figure is from, in words for the report."""


def table() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("prices.toml").read_text())
    return found


def price(per_hour: float | None, kind: str | None, environment: dict[str, Any]) -> Price | None:
    """The user's figure, the named kind's, or that of the kind this machine looks like; else none."""
    if per_hour is not None:
        return Price(per_hour, "given by --price-per-hour")
    known = table()
    name = kind or _guess(known, environment)
    if name is None:
        return None
    if name not in known:
        raise KeyError(f"no machine kind {name!r}; there are {', '.join(known)}")
    entry = known[name]
    return Price(float(entry["usd_per_hour"]), f"{name}: {entry['source']} ({entry['read']})")


def _guess(known: dict[str, dict[str, Any]], environment: dict[str, Any]) -> str | None:
    cards = [card["name"] for card in environment["gpus"]]
    cores = environment["cpu"]["cores_usable"] or environment["cpu"]["cores_logical"]
    for name, entry in known.items():
        if cards and len(cards) == 1 and entry.get("matches_gpu", "\0") in cards[0]:
            return name
        if not cards and entry.get("cores") == cores:
            return name
    return None


def per_1k_tokens(price_per_hour: float, tokens_per_s: float) -> float:
    """Cost of a thousand tokens at full use of the machine."""
    return price_per_hour / 3600 / tokens_per_s * 1000
