"""A finished run in one file, `records.jsonl.zst`: what raw/ held, a twentieth of its size.

One JSON array a line: `["cell", {...}]`, then its `["request", {...}]` and `["telemetry", {...}]` lines,
in the order of the plan. Nothing is left out and nothing derived, so that a report renders the same from
either form.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from rllm_bench.records.cells import Cell, CellRecord, RequestRecord, TelemetrySample

_LEVEL = 19
_KINDS: dict[str, type[Any]] = {
    "cell": CellRecord,
    "request": RequestRecord,
    "telemetry": TelemetrySample,
}


def write(path: Path, cells: Iterable[Cell]) -> None:
    """All of it or nothing: the file appears under its name once it is complete."""
    partial = path.with_name(path.name + ".tmp")
    with partial.open("wb") as raw, zstandard.ZstdCompressor(level=_LEVEL).stream_writer(raw) as out:
        for line in _lines(cells):
            out.write(msgspec.json.encode(line) + b"\n")
    partial.replace(path)


def read(content: bytes) -> dict[str, Cell]:
    """The cells by id, in the order of the file."""
    cells: dict[str, Cell] = {}
    requests: list[RequestRecord] = []
    telemetry: list[TelemetrySample] = []
    for kind, record in _records(content):
        if kind == "cell":
            requests, telemetry = [], []
            cells[record.spec.id] = Cell(record, requests, telemetry)
        elif kind == "request":
            requests.append(record)
        else:
            telemetry.append(record)
    return cells


def _lines(cells: Iterable[Cell]) -> Iterator[tuple[str, Any]]:
    for cell in cells:
        yield "cell", cell.record
        yield from (("request", request) for request in cell.requests)
        yield from (("telemetry", sample) for sample in cell.telemetry)


def _records(content: bytes) -> Iterator[tuple[str, Any]]:
    with zstandard.ZstdDecompressor().stream_reader(content) as stream:
        for line in io.BufferedReader(stream):
            kind, content = msgspec.json.decode(line, type=tuple[str, msgspec.Raw])
            yield kind, msgspec.json.decode(content, type=_KINDS[kind])
