from __future__ import annotations

from tests.formats.page import PAGE, page


def test_the_table_in_the_docs_is_what_is_found() -> None:
    text = PAGE.read_text()
    assert page(text) == text, "python -m tests.formats.page"
