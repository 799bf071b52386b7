"""reports/README.md: what was asked, when, on which machine, and the answer in a line.

`reports/index.toml` says what no record can: the question and the verdict of each folder, whose figures carry
keys. Date and machine are in the folder's name; the commit is read from its records.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from rllm_bench.figures.pages import fill
from rllm_bench.figures.sources import Catalog
from rllm_bench.records import archive

_HEAD = """\
# Reports

One folder per question; its entry page is `report.md`. `rllm-bench index` writes this page from `index.toml`
and the records, and `scripts/check` compares them. What was superseded is in [archive.md](archive.md).
Records are `run.json` and `records.jsonl.zst` or, where there is more, `records.tar.zst` (`rllm-bench pack`).

**[The answer on one page](SUMMARY.md)** · [中文](SUMMARY.zh-CN.md)

| date | question | machine | commit | verdict |
| --- | --- | --- | --- | --- |
"""


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder below reports/."""

    question: str
    machine: str
    verdict: str
    commit: str | None = None
    """Where no record names it."""


class BadIndex(Exception):
    """The index and the folders do not agree."""


def render(root: Path) -> str:
    """The page. Raises `BadIndex` where a folder lacks an entry or a report.md, or an entry its folder."""
    reports = root / "reports"
    content = tomllib.loads((reports / "index.toml").read_text())
    entries = msgspec.convert(content, type=dict[str, Entry])
    folders = {path.name for path in reports.iterdir() if path.is_dir() and path.name[:2] == "20"}
    for problem in _problems(reports, set(entries), folders):
        raise BadIndex(problem)
    lines = [_line(reports / name, entries[name]) for name in sorted(entries, reverse=True)]
    return fill(_HEAD + "\n".join(lines) + "\n", Catalog(root))


def _problems(reports: Path, named: set[str], folders: set[str]) -> Iterator[str]:
    for name in sorted(folders - named):
        yield f"reports/{name} has no entry in reports/index.toml"
    for name in sorted(named - folders):
        yield f"reports/index.toml names {name}, which is no folder of reports/"
    for name in sorted(folders):
        if not (reports / name / "report.md").exists():
            yield f"reports/{name} has no report.md"


def _line(folder: Path, entry: Entry) -> str:
    commit = entry.commit or _commit(folder) or "–"
    question = f"[{entry.question}]({folder.name}/report.md)"
    return f"| {folder.name[:10]} | {question} | {entry.machine} | `{commit[:7]}` | {entry.verdict} |"


def _commit(folder: Path) -> str | None:
    """Of the first record that says by which code it was made."""
    for path in archive.files(folder, ".json"):
        content = json.loads(archive.read_bytes(path))
        found = content.get("environment", {}).get("git", {}) if isinstance(content, dict) else {}
        if found.get("commit"):
            return str(found["commit"])
    return None
