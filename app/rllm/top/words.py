"""Numbers for the eye; what is not known is a dash."""

from __future__ import annotations

import math

from rich.text import Text

_DASH = "–"
_BAR = 8


def count(value: float | None) -> str:
    return _DASH if value is None else f"{value:.0f}"


def number(value: float | None) -> str:
    """Three digits or so."""
    if value is None or math.isnan(value):
        return _DASH
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def duration(seconds: float | None) -> str:
    if seconds is None or math.isnan(seconds):
        return _DASH
    if seconds < 0.01:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, hours = divmod(round(seconds / 60), 60)[::-1]
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def memory(num_bytes: float | None) -> str:
    if num_bytes is None:
        return _DASH
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"


def share(part: float | None, whole: float | None) -> str:
    return _DASH if part is None or not whole else f"{part / whole:.0%}"


def bar(part: float | None, whole: float | None, words: str) -> Text:
    """Green, and red when little is left."""
    filled = 0.0 if part is None or not whole else min(1.0, part / whole)
    full = round(filled * _BAR)
    style = "red" if filled >= 0.9 else "yellow" if filled >= 0.7 else "green"
    return Text.assemble(("█" * full, style), ("░" * (_BAR - full), "dim"), f" {words}")
