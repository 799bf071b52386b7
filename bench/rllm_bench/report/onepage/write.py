"""Puts the page on disk, or on the console."""

from __future__ import annotations

import re
from pathlib import Path

from rllm_bench.figures.sources import Catalog
from rllm_bench.report.onepage import spec
from rllm_bench.report.onepage.page import LANGUAGES, Writer


def write(root: Path) -> list[Path]:
    """Both languages and a chart for each table, below ``root``/reports."""
    from rllm_bench.report.onepage.chart import draw  # matplotlib is slow to load, and the console needs none

    catalog, page = Catalog(root), spec.load(root / "reports" / "summary.toml")
    folder = root / "reports"
    charts = [
        draw(catalog, table, folder / "plots", f"summary-{n}") for n, table in enumerate(page.tables, 1)
    ]
    written = []
    for language, name in LANGUAGES.items():
        path = folder / name
        path.write_text(Writer(catalog, language).page(page, charts))
        written.append(path)
    return written


def printed(root: Path) -> str:
    """The English page without keys, bold and pictures."""
    catalog, page = Catalog(root), spec.load(root / "reports" / "summary.toml")
    text = Writer(catalog, "en").page(page, [""] * len(page.tables))
    text = re.sub(r"<!--.*?-->|\*\*|^!\[.*\n\n", "", text, flags=re.MULTILINE)
    return "\n".join(_aligned(text.splitlines()))


def _aligned(lines: list[str]) -> list[str]:
    """Tables with columns of equal width."""
    found: list[str] = []
    table: list[list[str]] = []
    for line in [*lines, ""]:
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip("|").split("|")])
            continue
        if table:
            widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
            found += [
                "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                for row in table
                if not set("".join(row)) <= {"-"}
            ]
            table = []
        found.append(line)
    return found[:-1]
