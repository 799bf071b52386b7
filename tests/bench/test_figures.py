"""Figures on pages follow from records, and a figure typed by hand is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rllm_bench.figures.keys import UnknownFigure, parse, show
from rllm_bench.figures.pages import check, fill
from rllm_bench.figures.sources import Catalog
from rllm_bench.figures.stats import Array


class Numbers:
    """A source that knows three lists."""

    def find(self, query: str) -> Array:
        return np.asarray({"one": [1.0], "pairs": [2.0, 8.0, 3.0], "peers": [1.0, 2.0, 3.0]}[query])


@pytest.mark.parametrize(
    ("key", "figure"),
    [
        ("n one", "1.00"),
        ("n pairs / n peers", "2.00"),  # the median of 2, 4 and 1: paired first
        ("n pairs - n one * 100 as .0f", "200"),  # from left to right
        ("n one * 1234567", "1,234,567"),
        ("n one / 8 as .1%", "12.5%"),
    ],
)
def test_a_key_is_computed(key: str, figure: str) -> None:
    assert parse(key).compute(lambda name: Numbers()) == figure


@pytest.mark.parametrize("key", ["", "n one /", "/ n one", "n one + + n one"])
def test_a_key_without_a_term_is_refused(key: str) -> None:
    with pytest.raises(UnknownFigure, match="a term is missing"):
        parse(key)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.01234, "0.0123"), (1.234, "1.23"), (228.4, "228"), (5023.1, "5,023")]
)
def test_three_significant_digits_are_shown(value: float, text: str) -> None:
    assert show(value, "") == text


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    record = {"variants": [{"name": "q4", "kld": 0.0353}], "found": {"llama-server split": [{"tok/s": 4}]}}
    (tmp_path / "quality.json").write_text(json.dumps(record))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "figures.toml").write_text(
        'pages = ["page.md"]\n[sources]\nquality = "quality.json"\n'
    )
    return Catalog(tmp_path)


PAGE = (
    "KLD <!--= quality variants[?name=='q4'].kld as .3f -->?<!--/-->, "
    '<!--= quality found."llama-server split"[*]."tok/s" * 2 as .0f -->?<!--/--> tokens.\n'
)


def test_a_filled_page_passes_the_check_and_a_changed_figure_does_not(catalog: Catalog) -> None:
    page = catalog.root / "page.md"
    page.write_text(fill(PAGE, catalog))
    assert ">0.035<" in page.read_text()
    assert ">8<" in page.read_text()
    assert list(check(page, catalog)) == []
    page.write_text(page.read_text().replace(">0.035<", ">0.036<"))
    (wrong,) = check(page, catalog)
    assert "it says 0.036, the record says 0.035" in str(wrong)


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("elsewhere x", "no source 'elsewhere'"),
        ("quality variants[0].name", "no number"),
        ("quality variants[", "no JMESPath"),
        ("quality variants | [0].kld", "a bar in a key"),
    ],
)
def test_a_key_that_no_record_answers_is_named(catalog: Catalog, key: str, problem: str) -> None:
    page = catalog.root / "page.md"
    page.write_text(f"It is <!--= {key} -->1<!--/-->")
    wrong = next(check(page, catalog))
    assert problem in str(wrong)


def test_an_open_comment_is_found(catalog: Catalog) -> None:
    page = catalog.root / "page.md"
    page.write_text("It is <!--= quality x -->1")
    (wrong,) = check(page, catalog)
    assert "not closed" in str(wrong)


def test_a_key_that_begins_a_line_is_found(catalog: Catalog) -> None:
    page = catalog.root / "page.md"
    page.write_text(fill("KLD\n<!--= quality variants[0].kld -->?<!--/-->\n", catalog))
    (wrong,) = check(page, catalog)
    assert "page.md:2: a key at the beginning of a line" in str(wrong)
