"""The stored result of one case: every run, their summary, and the circumstances."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.attack.case import Outcome
from tests.chaos.circumstances import Circumstances

_FILE = "records.json"


@dataclass
class Record:
    name: str
    model: str
    outcome: Outcome
    runs: list[Outcome]
    circumstances: Circumstances

    def save(self, folder: Path, *, before: bool) -> None:
        """In place of an earlier one of the same name."""
        folder.mkdir(parents=True, exist_ok=True)
        records = _read(folder)
        records.setdefault(_part(before), {})[self.name] = asdict(self)
        data = orjson.dumps(records, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        (folder / _FILE).write_bytes(data + b"\n")


def load(folder: Path, *, before: bool) -> dict[str, Record]:
    """By name."""
    return {
        name: Record(
            name,
            data["model"],
            Outcome(**data["outcome"]),
            [Outcome(**run) for run in data["runs"]],
            Circumstances(**data["circumstances"]),
        )
        for name, data in _read(folder).get(_part(before), {}).items()
    }


def _part(before: bool) -> str:
    return "before" if before else "after"


def _read(folder: Path) -> dict[str, Any]:
    path = folder / _FILE
    return orjson.loads(path.read_bytes()) if path.exists() else {}
