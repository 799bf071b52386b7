"""The model files of a folder and the catalog's entries, in one table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
from tabulate import tabulate

from rllm.errors import StartError
from rllm.files.gguf_info import read_gguf
from rllm.modelhub import provenance
from rllm.modelhub.catalog import Catalog
from rllm.modelhub.quant_types import file_type_name
from rllm.printable import printable


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    file: str
    type: str
    size_bytes: int | None
    """None: not there."""
    model: str
    """The catalog's name for it; empty for a file of the user's own."""
    note: str


def entries(directory: Path, catalog: Catalog) -> list[Entry]:
    """What is there, then what the catalog knows and is not there."""
    owners = {
        file: name
        for name, model in catalog.models.items()
        for file in (model.file, *(variant.file for variant in model.variants))
    }
    present = sorted(directory.glob("*.gguf"))
    missing = [file for file in owners if not (directory / file).exists()]
    return [_present(path, owners) for path in present] + list(_missing(missing, owners))


def _present(path: Path, owners: dict[str, str]) -> Entry:
    record = provenance.load(path)
    try:
        kind, note = file_type_name(read_gguf(path)), "own file" if record is None else record.made_by
    except StartError as error:
        kind, note = "?", str(error).removeprefix(f"{path}: ")
    if record is not None and record.sources:
        note += f" from {record.sources[0].file}"
    size = path.stat().st_size
    return Entry(
        file=printable(path.name), type=kind, size_bytes=size, model=owners.get(path.name, ""), note=note
    )


def _missing(files: list[str], owners: dict[str, str]) -> Iterator[Entry]:
    for file in files:
        yield Entry(file=file, type="", size_bytes=None, model=owners[file], note="not pulled")


def as_table(found: list[Entry]) -> str:
    rows = [
        tuple(map(printable, (e.file, e.type, _size_words(e.size_bytes), e.model, e.note))) for e in found
    ]
    return tabulate(rows, headers=["file", "type", "size", "model", "note"], disable_numparse=True)


def _size_words(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / 2**20:,.0f} MiB"
