"""Every figure of a run for other tools: one CSV, and a JSON per cell in the keys of `vllm bench serve`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import msgspec

from rllm_bench.figures import vllm_format
from rllm_bench.figures.summary import Summary, judged, summarize
from rllm_bench.records.store import Store, file_name


def export(folders: Sequence[Path], out: Path) -> None:
    """Into ``out``: summary.csv and vllm/."""
    stores = [Store(folder) for folder in folders]
    out.mkdir(parents=True, exist_ok=True)
    for store in stores:
        write_vllm(store, out / "vllm")
    write_csv(summarize(stores), out / "summary.csv")


def write_vllm(store: Store, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    slos = list(store.run().slos.values())
    for cell in judged(store):
        if cell.good:
            data = msgspec.json.encode(vllm_format.result(cell, slos[0] if slos else None))
            (folder / f"{file_name(cell.record.spec)}.json").write_bytes(data + b"\n")


def write_csv(summary: Summary, path: Path) -> None:
    """One line per cell, every figure; empty where a cell has none."""
    rows = [(cell, values) for cell, values in summary.figures if values]
    names = list(dict.fromkeys(name for _, values in rows for name in values))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["subject", "group", "repeat", "steady_window", *names])
    for cell, values in rows:
        spec = cell.record.spec
        found = [repr(round(values[name], 6)) if name in values else "" for name in names]
        writer.writerow([spec.subject, spec.group, spec.repeat, cell.is_steady, *found])
    path.write_text(buffer.getvalue())
