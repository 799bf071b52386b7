"""Comparing rendered texts by markers and words, so that two markers are never cut where they begin alike."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from rllm.api.text.formats.shapes import INDEX, NUMBER

_UNIT = re.compile(r"⟨\w+⟩|<[^<>\s]*>|\[/?[A-Z][A-Z_]*\]|</?[\w:.｜|▁-]+|\d+|\w+|\s|.", re.DOTALL)
_MARKER = re.compile(r"<[^<>\s]{2,}>|\[/?[A-Z][A-Z_]+\]")


def units(text: str) -> list[str]:
    return _UNIT.findall(text)


def is_marker(text: str) -> bool:
    """``<tool_call>``, ``[TOOL_CALLS]`` and their like, whole."""
    return _MARKER.fullmatch(text) is not None


def common_prefix(first: str, second: str) -> str:
    return "".join(_common(units(first), units(second)))


def common_suffix(first: str, second: str) -> str:
    """As far as both end alike, where ``second`` belongs to the call after: its number becomes a slot."""
    return "".join(reversed(_common(reversed(units(first)), reversed(units(second)))))


def with_slots(first: str, second: str) -> str | None:
    """The one text of which these are the forms in two calls, one after the other; None: there is none."""
    firsts, seconds = units(first), units(second)
    common = _common(firsts, seconds)
    return "".join(common) if len(common) == len(firsts) == len(seconds) else None


def rest_after(base: str, text: str) -> str:
    """``text`` from where it is no longer like ``base``; empty where one of them is."""
    if not base or not text:
        return ""
    shared = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(units(base), units(text), strict=False))
    return text[sum(len(unit) for unit, _ in shared) :]


def without_suffix(text: str, end: str) -> str:
    """``text`` without its last units that a slotted ``end`` stands for."""
    count = len(units(end))
    return "".join(units(text)[:-count]) if count else text


def _common(firsts: Iterable[str], seconds: Iterable[str]) -> list[str]:
    common = []
    for first, second in zip(firsts, seconds, strict=False):
        if (unit := _one(first, second)) is None:
            break
        common.append(unit)
    return common


def _one(first: str, second: str) -> str | None:
    if first == second:
        return first
    return {("0", "1"): INDEX, ("1", "2"): NUMBER}.get((first, second))
