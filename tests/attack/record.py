"""The stored result of one case: every run, their summary, and the circumstances."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from tests.attack.case import Outcome
from tests.chaos.circumstances import Circumstances


@dataclass
class Record:
    name: str
    model: str
    outcome: Outcome
    runs: list[Outcome]
    circumstances: Circumstances

    def save(self, folder: Path, *, before: bool) -> None:
        """As NAME.json, in place of an earlier one."""
        path = path_of(folder, self.name, before=before)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2) + b"\n")


def load(folder: Path, name: str, *, before: bool) -> Record | None:
    path = path_of(folder, name, before=before)
    if not path.exists():
        return None
    data = orjson.loads(path.read_bytes())
    return Record(
        data["name"],
        data["model"],
        Outcome(**data["outcome"]),
        [Outcome(**run) for run in data["runs"]],
        Circumstances(**data["circumstances"]),
    )


def path_of(folder: Path, name: str, *, before: bool) -> Path:
    return folder / ("before" if before else "after") / f"{name}.json"
