"""Where a run lives on disk.

run.json                      plan, machine, settings, subjects: written once, before the first cell
vocabulary.json               the words of prompts; of kept runs vocabularies/DIGEST.json in a folder above
raw/CELL.requests.jsonl       one line per request
raw/CELL.telemetry.jsonl      samples of server and machine
raw/CELL.cell.json            written last; a cell without it never happened
records.jsonl.zst             takes the place of raw/ when every cell is done (`packed`)
../records.tar.zst            of a report with several runs: these files of all its runs (`archive`)
vllm/CELL.json, summary.csv, report.md, plots/    made again from the above by `rllm-bench report`
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from rllm_bench.records import archive, packed
from rllm_bench.records.cells import Cell, CellRecord, CellSpec, RequestRecord, TelemetrySample
from rllm_bench.records.runs import RunRecord
from rllm_bench.records.vocabulary import Vocabulary


class Store:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.raw = folder / "raw"

    @property
    def vocabulary_path(self) -> Path:
        return self.folder / "vocabulary.json"

    def exists(self) -> bool:
        return archive.exists(self.folder / "run.json")

    def create(self, run: RunRecord, vocabulary: Vocabulary) -> None:
        self.raw.mkdir(parents=True, exist_ok=True)
        (self.folder / "logs").mkdir(exist_ok=True)
        write_whole(self.vocabulary_path, msgspec.json.encode(vocabulary))
        write_whole(self.folder / "run.json", _pretty(run))

    def run(self) -> RunRecord:
        return msgspec.json.decode(archive.read_bytes(self.folder / "run.json"), type=RunRecord)

    def vocabulary(self) -> Vocabulary:
        """Kept runs share one copy, which stands above them under its digest."""
        shared = [folder / "vocabularies" / f"{self.run().vocabulary}.json" for folder in self.folder.parents]
        found = next(
            (path for path in (self.vocabulary_path, *shared) if archive.exists(path)), self.vocabulary_path
        )
        return msgspec.json.decode(archive.read_bytes(found), type=Vocabulary)

    def part(self, spec: CellSpec, process: int) -> Path:
        """Where a generator process writes while the cell is in flight."""
        return self.raw / f"{file_name(spec)}.{process}.part"

    def is_done(self, spec: CellSpec) -> bool:
        return spec.id in self._packed or self._path(spec, "cell.json").exists()

    @property
    def packed_path(self) -> Path:
        return self.folder / "records.jsonl.zst"

    @cached_property
    def _packed(self) -> dict[str, Cell]:
        return packed.read(archive.read_bytes(self.packed_path)) if archive.exists(self.packed_path) else {}

    def pack(self) -> None:
        """One file instead of raw/, where every planned cell is done."""
        if all(self.is_done(spec) for spec in self.run().cells) and not self.packed_path.exists():
            packed.write(self.packed_path, self.cells())
            shutil.rmtree(self.raw)
            self.__dict__.pop("_packed", None)

    def unpack(self) -> None:
        """raw/ again, so that a run can be resumed."""
        self.raw.mkdir(parents=True, exist_ok=True)
        for cell in self._packed.values():
            self._write_cell(cell.record, list(cell.requests), list(cell.telemetry))
        self.packed_path.unlink(missing_ok=True)
        self.__dict__.pop("_packed", None)

    def save(self, record: CellRecord, telemetry: list[TelemetrySample]) -> None:
        """Merges the generators' files in order of the workload; the cell counts once this returns."""
        spec = record.spec
        parts = sorted(self.raw.glob(f"{file_name(spec)}.*.part"))
        requests = sorted(
            (request for part in parts for request in _lines(part, RequestRecord)),
            key=lambda request: (request.index, request.turn),
        )
        self._write_cell(record, requests, telemetry)
        for part in parts:
            part.unlink()

    def _write_cell(
        self, record: CellRecord, requests: list[RequestRecord], telemetry: list[TelemetrySample]
    ) -> None:
        spec = record.spec
        _write_lines(self._path(spec, "requests.jsonl"), requests)
        _write_lines(self._path(spec, "telemetry.jsonl"), telemetry)
        write_whole(self._path(spec, "cell.json"), _pretty(record))

    def load(self, spec: CellSpec) -> Cell:
        if spec.id in self._packed:
            return self._packed[spec.id]
        return Cell(
            record=msgspec.json.decode(self._path(spec, "cell.json").read_bytes(), type=CellRecord),
            requests=list(_lines(self._path(spec, "requests.jsonl"), RequestRecord)),
            telemetry=list(_lines(self._path(spec, "telemetry.jsonl"), TelemetrySample)),
        )

    def cells(self) -> list[Cell]:
        """Finished cells, in the order of the plan."""
        return [self.load(spec) for spec in self.run().cells if self.is_done(spec)]

    def forget_partial(self) -> None:
        for part in self.raw.glob("*.part"):
            part.unlink()

    def forget_failed(self) -> None:
        """So that a resumed run tries them again."""
        for spec in self.run().cells:
            if self.is_done(spec) and self.load(spec).record.error is not None:
                self._path(spec, "cell.json").unlink()

    def _path(self, spec: CellSpec, suffix: str) -> Path:
        return self.raw / f"{file_name(spec)}.{suffix}"


def file_name(spec: CellSpec) -> str:
    return safe_name(spec.id)


def safe_name(text: str) -> str:
    """As a part of a path."""
    return re.sub(r"[^\w.+=-]", "_", text)


def _pretty(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


def write_whole(path: Path, data: bytes) -> None:
    """All of it or nothing, also when we are killed in between."""
    partial = path.with_name(path.name + ".tmp")
    partial.write_bytes(data)
    partial.replace(path)


def _write_lines(path: Path, values: list[Any]) -> None:
    write_whole(path, b"".join(msgspec.json.encode(value) + b"\n" for value in values))


def _lines(path: Path, kind: type[Any]) -> Iterator[Any]:
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        yield msgspec.json.decode(line, type=kind)
