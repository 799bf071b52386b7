"""Pages with figures: `<!--= KEY -->240<!--/-->` in Markdown, invisible to a reader but for the number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rllm_bench.figures.keys import UnknownFigure, parse
from rllm_bench.figures.sources import Catalog

_MARK = re.compile(r"<!--= (?P<key>.*?) -->(?P<text>.*?)<!--/-->", re.DOTALL)
_OPENING = re.compile(r"<!--=")
_AT_LINE_START = re.compile(r"^ {0,3}<!--=", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Wrong:
    """A figure that is not what its record says."""

    page: Path
    line: int
    key: str
    problem: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.problem} (key: {self.key})"


def fill(text: str, catalog: Catalog) -> str:
    """The page with every figure computed anew. Raises `UnknownFigure` where one cannot be."""

    def replace(match: re.Match[str]) -> str:
        figure = parse(match["key"]).compute(catalog.source)
        return f"<!--= {match['key']} -->{figure}<!--/-->"

    return _MARK.sub(replace, text)


def check(page: Path, catalog: Catalog) -> Iterator[Wrong]:
    """What stands on the page and does not follow from the records."""
    text = page.read_text()
    marks = list(_MARK.finditer(text))
    if len(marks) != len(_OPENING.findall(text)):
        yield Wrong(page, 1, "", "a figure's comment is not closed with <!--/-->")
    for begin in _AT_LINE_START.finditer(text):
        line = text.count("\n", 0, begin.start()) + 1
        yield Wrong(page, line, "", "a key at the beginning of a line ends the paragraph in Markdown")
    for match in marks:
        line = text.count("\n", 0, match.start()) + 1
        if "|" in match["key"]:
            yield Wrong(page, line, match["key"], "a bar in a key ends a cell of a table")
        try:
            figure = parse(match["key"]).compute(catalog.source)
        except UnknownFigure as wrong:
            yield Wrong(page, line, match["key"], str(wrong))
            continue
        if figure != match["text"]:
            yield Wrong(page, line, match["key"], f"it says {match['text']}, the record says {figure}")
