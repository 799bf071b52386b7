"""The table in docs/tools.md: what is found in each template. `python -m tests.formats.page` writes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.formats.samples import NAMES, format_of

PAGE = Path(__file__).parents[2] / "docs" / "tools.md"
_BEGIN = "<!-- from tests/formats: python -m tests.formats.page -->\n"
_END = "<!-- end -->\n"


def page(text: str) -> str:
    """``text`` with the table as it is now."""
    before, _, rest = text.partition(_BEGIN)
    after = rest.partition(_END)[2]
    return before + _BEGIN + "\n".join(_rows()) + "\n" + _END + after


def _rows() -> Iterator[str]:
    yield "| template | tools | reasoning |"
    yield "| --- | --- | --- |"
    for name in NAMES:
        form = format_of(name)
        yield f"| {name} | {_code(str(form.tools))} | {_code(str(form.reasoning or 'none'))} |"


def _code(text: str) -> str:
    """Marks are no HTML, and a bar is no border."""
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
