"""What a key says: `TERM [+-*/ TERM]... [as FORMAT]`, evaluated from left to right.

A term is a number, `( KEY )`, or a source's name followed by a query that this source understands:

    cpu-peers rllm/f16 c8-p128-o64 output_tps                one figure of a run: subject, group, metric
    quality variants[?name=='q4'].divergence.kld_mean.value  a JMESPath query into a JSON record
    h100 rllm/f16 c64-p400-o128 output_tps / h100 vllm/f16 c64-p400-o128 output_tps as .2f

Operators and parentheses stand between spaces and outside quotes. Operands that are lists combine item by
item, so that a ratio of pairs stays paired; the median of what remains is the figure. FORMAT is Python's
format specification; without one, three significant digits. (A bar would end a cell of a Markdown table.)
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
class Expression:
    """The first term, then operator and term by turns."""

    parts: tuple[str | Expression, ...]

    def compute(self, sources: Callable[[str], Source]) -> Array:
        value = _compute(self.parts[0], sources)
        for sign, term in zip(self.parts[1::2], self.parts[2::2], strict=True):
            value = _OPERATORS[str(sign)](value, _compute(term, sources))
        return value


@dataclass(frozen=True, slots=True)
class Key:
    """A parsed key."""

    expression: Expression
    format: str

    def value(self, sources: Callable[[str], Source]) -> float:
        """The figure: the median where several numbers remain."""
        return float(np.median(self.expression.compute(sources)))

    def compute(self, sources: Callable[[str], Source]) -> str:
        """The figure as it stands on the page."""
        return show(self.value(sources), self.format)


def parse(text: str) -> Key:
    """Split a key at its operators. Raises `UnknownFigure` where a term is missing."""
    expression, _, spec = text.partition(" as ")
    words = _words(expression.strip())
    found = _expression(words)
    if words:
        raise UnknownFigure(f"a parenthesis is closed that was not opened in {text.strip()!r}")
    return Key(found, spec.strip())


def _expression(words: list[str]) -> Expression:
    """Takes its words off the front of the list, up to a closing parenthesis."""
    parts: list[str | Expression] = [_next_term(words)]
    while words and words[0] in _OPERATORS:
        parts += [words.pop(0), _next_term(words)]
    return Expression(tuple(parts))


def _next_term(words: list[str]) -> str | Expression:
    if words and words[0] == "(":
        words.pop(0)
        inside = _expression(words)
        if not words:
            raise UnknownFigure("a parenthesis is not closed")
        words.pop(0)
        return inside
    term = []
    while words and words[0] not in (*_OPERATORS, "(", ")"):
        term.append(words.pop(0))
    if not any(term):
        raise UnknownFigure(f"a term is missing before {' '.join(words) or 'the end'!r}")
    return " ".join(term)


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


def _compute(term: str | Expression, sources: Callable[[str], Source]) -> Array:
    if isinstance(term, Expression):
        return term.compute(sources)
    try:
        return np.asarray([float(term)])
    except ValueError:
        name, _, query = term.partition(" ")
        return sources(name).find(query.strip())
