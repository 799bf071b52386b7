"""The answer on one page follows from its records, in both languages, to the last byte."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rllm_bench.figures.pages import check
from rllm_bench.figures.sources import Catalog
from rllm_bench.report.onepage.page import LANGUAGES, WORDS
from rllm_bench.report.onepage.write import printed, write
from tests.bench.conftest import Delay, Measure

TABLE = """
heading = {en = "Which?", zh = "选哪个"}
lead = {en = "Two servers.", zh = "两个服务器。"}
[[tables]]
source = "run"
prompt_tokens = 8
output_tokens = 4
loads = [1, 2]
kv_bytes_per_token = 10
memory = "pss_peak_mb"
title = {en = "A machine", zh = "一台机器"}
rows = [
    {name = "ours", subject = "url/default", ours = true},
    {name = "peer", subject = "url/default", source = "again", peer = true},
]
"""


@pytest.fixture
def checkout(delay: Callable[..., Delay], measure: Measure, tmp_path: Path) -> Path:
    """Two runs of a delay server, named as records of a page."""
    server = delay(ttft_s=0.01, tpot_s=0.002)
    store = measure(server.url, concurrency=[1, 2], prompt_tokens=[8], output_tokens=[4], requests_per_user=3)
    (subject,) = {spec.subject for spec in store.run().cells}
    root = tmp_path / "checkout"
    for name in ("run", "again"):
        shutil.copytree(store.folder, root / name)
        run = root / name / "run.json"
        record = json.loads(run.read_text())
        record["subjects"][0]["model_bytes"] = 1_000_000
        run.write_text(json.dumps(record))
    (root / "docs").mkdir()
    (root / "docs" / "figures.toml").write_text('[sources]\nrun = "run"\nagain = "again"\n')
    (root / "reports").mkdir()
    (root / "reports" / "summary.toml").write_text(TABLE.replace("url/default", subject))
    return root


def test_it_is_written_to_the_last_byte_again_and_its_figures_hold(checkout: Path) -> None:
    first = {path.name: path.read_bytes() for path in write(checkout)}
    assert {path.name: path.read_bytes() for path in write(checkout)} == first
    for name in LANGUAGES.values():
        assert list(check(checkout / "reports" / name, Catalog(checkout))) == []
    assert "ours" in printed(checkout)
    assert "<!--" not in printed(checkout)


def test_a_changed_record_changes_the_figure_in_both_languages(checkout: Path) -> None:
    before = [_speeds(path) for path in write(checkout)]
    for lines in (checkout / "run" / "raw").glob("*-c1-*.requests.jsonl"):
        rows = [json.loads(line) for line in lines.read_text().splitlines()]
        slower = [row | {"closed_us": 2 * row["closed_us"]} for row in rows]
        lines.write_text("".join(json.dumps(row) + "\n" for row in slower))
    after = [_speeds(path) for path in write(checkout)]
    assert before[0] == before[1]
    assert after[0] == after[1]
    assert float(after[0][0]) == pytest.approx(float(before[0][0]) / 2, rel=0.02)
    assert after[0][1] == before[0][1]


def test_both_languages_have_the_same_words() -> None:
    assert WORDS["en"].keys() == WORDS["zh"].keys()


def _speeds(path: Path) -> list[str]:
    """Tokens per second of the first row, by load."""
    return re.findall(
        r"<!--= run \S+ c\d-\S+ output_tps -->([\d.,]+)<", path.read_text().split("| ours |")[1]
    )
