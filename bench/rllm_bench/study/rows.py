"""The records of a study as rows: one for each subject under one load in one piece."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rllm_bench.figures import metrics
from rllm_bench.figures.summary import judged
from rllm_bench.records.runs import RunRecord
from rllm_bench.records.store import Store


@dataclass(frozen=True)
class Row:
    """One subject under one load in one piece: medians over its repeats."""

    piece: str
    subject: str
    group: str
    repeats: int
    values: Mapping[str, float]
    failed: int

    @property
    def engine(self) -> str:
        return self.subject.partition("/")[0]

    @property
    def concurrency(self) -> int:
        found = re.search(r"c(\d+)-p", self.group)
        return int(found[1]) if found else 0


def rows(folder: Path) -> tuple[list[Row], list[RunRecord]]:
    """Everything below ``folder`` that is a run."""
    found: list[Row] = []
    runs = []
    for place in sorted(path.parent for path in folder.glob("*/run.json")):
        store = Store(place)
        runs.append(run := store.run())
        grouped: dict[tuple[str, str], list[metrics.CellData]] = {}
        for cell in judged(store):
            if cell.record.error is None and cell.good:
                grouped.setdefault((cell.record.spec.subject, cell.record.spec.group), []).append(cell)
        found += [_row(run.name, name, group, cells) for (name, group), cells in grouped.items()]
    return found, runs


def _row(piece: str, name: str, group: str, cells: Sequence[metrics.CellData]) -> Row:
    each = [metrics.summarize(cell, {}) for cell in cells]
    shared = [key for key in each[0] if all(key in values for values in each)]
    values = {key: median(values[key] for values in each) for key in shared}
    failed = sum(len(cell.requests) - len(cell.good) for cell in cells)
    return Row(piece, name, group, len(cells), values, failed)
