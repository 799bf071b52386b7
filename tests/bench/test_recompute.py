"""The numbers again, from the raw lines, by someone who knows only vLLM's definitions."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rllm_bench.figures import vllm_format
from rllm_bench.report.export import export
from rllm_bench.report.page import render
from tests.bench.conftest import Delay, Measure, only_cell


def percentile(values: list[float], q: float) -> float:
    """Linear interpolation between the closest ranks, as numpy's default."""
    ordered = sorted(values)
    at = (len(ordered) - 1) * q / 100
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def recomputed(path: Path, slo: dict[str, float]) -> dict[str, float]:
    """`vllm bench serve` on the lines of one requests.jsonl."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    good = [row for row in rows if "error" not in row]
    duration = max(row["closed_us"] for row in rows) / 1e6
    ttfts = [(row["first_us"] - row["sent_us"]) / 1000 for row in good]
    e2els = [(row["last_us"] - row["sent_us"]) / 1000 for row in good]
    tokens = [row["completion_tokens"] for row in good]
    tpots = [(e - t) / (n - 1) for e, t, n in zip(e2els, ttfts, tokens, strict=True) if n > 1]
    itls = [gap / 1000 for row in good for gap in row.get("gaps_us", [])]
    met = sum(t <= slo["ttft"] and p <= slo["tpot"] for t, p in zip(ttfts, tpots, strict=True))
    found = {
        "completed": len(good),
        "failed": len(rows) - len(good),
        "duration": duration,
        "total_output_tokens": sum(tokens),
        "request_throughput": len(good) / duration,
        "output_throughput": sum(tokens) / duration,
        "total_token_throughput": sum(tokens) / duration + sum(r["prompt_tokens"] for r in good) / duration,
        "request_goodput": met / duration,
    }
    for name, values in (("ttft", ttfts), ("tpot", tpots), ("itl", itls), ("e2el", e2els)):
        found[f"mean_{name}_ms"] = statistics.fmean(values)
        found[f"median_{name}_ms"] = statistics.median(values)
        found[f"std_{name}_ms"] = statistics.pstdev(values)
        for q in (50, 90, 95, 99):
            found[f"p{q}_{name}_ms"] = percentile(values, q)
    return found


def test_vllms_definitions_give_the_same_numbers(delay: Callable[..., Delay], measure: Measure) -> None:
    server = delay(ttft_s=0.02, tpot_s=0.002, spread_s=0.03)
    store = measure(server.url, concurrency=[3], requests_per_user=5, output_tokens=[7])
    slo = {"ttft": 45.0, "tpot": 30.0}
    ours: dict[str, Any] = vllm_format.result(only_cell(store), slo)
    (lines,) = store.raw.glob("*.requests.jsonl")
    for name, value in recomputed(lines, slo).items():
        assert ours[name] == pytest.approx(value, rel=1e-9, abs=1e-9), name


@pytest.mark.slow  # test_packed renders twice, too
def test_a_report_is_the_same_to_the_last_byte(
    delay: Callable[..., Delay], measure: Measure, tmp_path: Path
) -> None:
    """Text, tables, CSV and pictures: rendering reads the raw records and nothing else."""
    server = delay(ttft_s=0.01, tpot_s=0.001, spread_s=0.01)
    store = measure(server.url, concurrency=[1, 2], prompt_tokens=[8, 16], repeats=3, requests_per_user=3)
    said: list[str] = []
    first = _bytes(render([store.folder], tmp_path / "a", say=said.append).parent)
    export([store.folder], tmp_path / "a")
    again = _bytes(render([store.folder], tmp_path / "b").parent)
    assert first == again
    assert any("tokens/s" in line for line in said)
    exported = _bytes(tmp_path / "a")
    assert {"report.md", "plots/summary.png"} <= first.keys()
    assert exported.keys() - first.keys() >= {"summary.csv"}


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
