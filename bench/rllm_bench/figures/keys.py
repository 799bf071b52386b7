"""What a key says: `TERM [+-*/ TERM]... [| FORMAT]`, evaluated from left to right.

A term is a number, or a source's name followed by a query that this source understands:

    cpu-peers rllm/f16 c8-p128-o64 output_tps                one figure of a run: subject, group, metric
    quality variants[?name=='q4'].divergence.kld_mean.value  a JMESPath query into a JSON record
    h100 rllm/f16 c64-p400-o128 output_tps / h100 vllm/f16 c64-p400-o128 output_tps | .2f

Operators stand between spaces and outside quotes. Operands that are lists combine item by item, so that a
ratio of pairs stays paired; the median of what remains is the figure. FORMAT is Python's format
specification; without one, three significant digits.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rllm_bench.figures.stats import Array

_OPERATORS: dict[str, Callable[[Array, Array], Array]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_QUOTED_OR_SPACE = re.compile(r"""("[^"]*"|'[^']*'|`[^`]*`|\[[^\]]*\])|\s+""")


class UnknownFigure(ValueError):
    """A key that cannot be computed: unknown source, no such record, or not a number."""


class Source(Protocol):
    """Where a term's numbers come from."""

    def find(self, query: str) -> Array:
        """One or more numbers. Raises `UnknownFigure` where the record has none."""


@dataclass(frozen=True, slots=True)
class Key:
    """A parsed key: the first term, then operator and term by turns."""

    parts: tuple[str, ...]
    format: str

    def compute(self, sources: Callable[[str], Source]) -> str:
        """The figure as it stands on the page."""
        value = _term(self.parts[0], sources)
        for sign, term in zip(self.parts[1::2], self.parts[2::2], strict=True):
            value = _OPERATORS[sign](value, _term(term, sources))
        return show(float(np.median(value)), self.format)


def parse(text: str) -> Key:
    """Split a key at its operators. Raises `UnknownFigure` where a term is missing."""
    expression, _, spec = text.partition(" | ")
    parts: list[str] = [""]
    for word in _words(expression.strip()):
        if word in _OPERATORS:
            parts += [word, ""]
        else:
            parts[-1] = f"{parts[-1]} {word}".strip()
    if not all(parts):
        raise UnknownFigure(f"a term is missing in {text.strip()!r}")
    return Key(tuple(parts), spec.strip())


def show(value: float, spec: str) -> str:
    """The number as text: thousands are separated, three significant digits unless ``spec`` says more."""
    if spec:
        return format(value, spec)
    digits = 0 if value == 0 else max(0, 2 - int(np.floor(np.log10(abs(value)))))
    return f"{value:,.{digits}f}"


def _words(text: str) -> list[str]:
    """Split at spaces, but not inside quotes and brackets."""
    words, begin = [""], 0
    for match in _QUOTED_OR_SPACE.finditer(text):
        words[-1] += text[begin : match.start()]
        begin = match.end()
        if match.group(1) is None:
            words.append("")
        else:
            words[-1] += match.group(1)
    words[-1] += text[begin:]
    return words


def _term(text: str, sources: Callable[[str], Source]) -> Array:
    try:
        return np.asarray([float(text)])
    except ValueError:
        name, _, query = text.partition(" ")
        return sources(name).find(query.strip())
