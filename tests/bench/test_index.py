"""The index of reports agrees with the folders, or says what does not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rllm_bench.report.index import BadIndex, render

ENTRY = '[2026-11-25-question]\nquestion = "Why?"\nmachine = "2 cores"\nverdict = "so"\n'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "reports" / "2026-11-25-question"
    folder.mkdir(parents=True)
    (folder / "report.md").write_text("# Why?\n")
    (folder / "run.json").write_text(json.dumps({"environment": {"git": {"commit": "0123456789"}}}))
    (tmp_path / "reports" / "index.toml").write_text(ENTRY)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "figures.toml").write_text("[sources]\n")
    return tmp_path


def test_every_folder_is_a_line(checkout: Path) -> None:
    line = "| 2026-11-25 | [Why?](2026-11-25-question/report.md) | 2 cores | `0123456` | so |"
    assert line in render(checkout)


def test_a_folder_without_an_entry_is_named(checkout: Path) -> None:
    (checkout / "reports" / "2026-11-26-other").mkdir()
    with pytest.raises(BadIndex, match="2026-11-26-other has no entry"):
        render(checkout)


def test_an_entry_without_a_folder_is_named(checkout: Path) -> None:
    (checkout / "reports" / "index.toml").write_text(ENTRY + ENTRY.replace("question]", "gone]"))
    with pytest.raises(BadIndex, match="2026-11-25-gone, which is no folder"):
        render(checkout)


def test_a_folder_without_its_entry_page_is_named(checkout: Path) -> None:
    (checkout / "reports" / "2026-11-25-question" / "report.md").unlink()
    with pytest.raises(BadIndex, match="has no report"):
        render(checkout)


def test_every_link_of_our_pages_leads_to_a_file() -> None:
    root = Path(__file__).parents[2]
    pages = [*root.glob("*.md"), *(root / "docs").rglob("*.md"), *(root / "reports").rglob("*.md")]
    broken = []
    for page in pages:
        prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)\s]+)", prose):
            place = link.partition("#")[0]
            if place and ":" not in place and not (page.parent / place).exists():
                broken.append(f"{page.relative_to(root)}: {link}")
    assert broken == []
