"""The evaluation data: packaged files, or the user's own in the same formats."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Literal

Kind = Literal["text", "pairs", "problems"]

_PACKAGED: Mapping[Kind, str] = {
    "text": "wiki.test.raw",
    "pairs": "blimp_1340.jsonl",
    "problems": "gsm8k_test.jsonl",
}


class DataError(ValueError):
    """A data file cannot be used; the message names the file and the line."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sentences; a good model finds ``good`` the more probable one."""

    paradigm: str
    good: str
    bad: str


@dataclass(frozen=True, slots=True)
class Problem:
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class EvaluationData:
    """Where each kind of data comes from; a kind that is not named is the packaged one."""

    own: Mapping[str, Path] = field(default_factory=dict)

    def path(self, kind: Kind) -> Path:
        if kind in self.own:
            return self.own[kind]
        return Path(str(resources.files(__package__) / "data" / _PACKAGED[kind]))

    def name(self, kind: Kind) -> str:
        return self.path(kind).name

    def sha256(self, kind: Kind) -> str:
        return hashlib.sha256(self.path(kind).read_bytes()).hexdigest()

    def text(self) -> str:
        return self.path("text").read_text(encoding="utf-8")

    def pairs(self) -> list[Pair]:
        return [
            Pair(str(row.get("paradigm", "")), _text(row, "good", place), _text(row, "bad", place))
            for place, row in _rows(self.path("pairs"))
        ]

    def problems(self) -> list[Problem]:
        return [
            Problem(_text(row, "question", place), _text(row, "answer", place))
            for place, row in _rows(self.path("problems"))
        ]


def _rows(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place = f"{path.name} line {number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as exc:
                raise DataError(f"{place}: not JSON ({exc.msg})") from exc
            if not isinstance(row, dict):
                raise DataError(f"{place}: not a JSON object")
            yield place, row


def _text(row: Mapping[str, object], key: str, place: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise DataError(f"{place}: {key!r} must be a text")
    return value
