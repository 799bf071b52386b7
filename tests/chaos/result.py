"""What a scenario found: promises that were kept or not, tables, series for plots, and the raw records."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tests.chaos.circumstances import Circumstances


@dataclass(frozen=True)
class Check:
    promise: str
    kept: bool
    measured: str


@dataclass
class Series:
    """Lines over one time axis."""

    title: str
    x: list[float]
    lines: dict[str, list[float]]
    x_label: str = "seconds"
    y_label: str = ""
    steps: bool = False


@dataclass
class Result:
    name: str
    title: str
    setup: str
    checks: list[Check] = field(default_factory=list)
    tables: list[tuple[str, list[str], list[list[Any]]]] = field(default_factory=list)
    """(title, column names, rows)"""
    series: list[Series] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    circumstances: Circumstances = field(default_factory=Circumstances)

    def check(self, promise: str, kept: bool, measured: str) -> None:
        self.checks.append(Check(promise, bool(kept), measured))

    @property
    def kept(self) -> bool:
        return all(check.kept for check in self.checks)

    def save(self, folder: Path) -> None:
        """As NAME.json, in place of an earlier run of the same scenario."""
        folder.mkdir(parents=True, exist_ok=True)
        data = orjson.dumps(asdict(self), default=str, option=orjson.OPT_NON_STR_KEYS)
        (folder / f"{self.name}.json").write_bytes(data)


def load(path: Path) -> Result:
    """What `Result.save` wrote."""
    data = orjson.loads(path.read_bytes())
    data["checks"] = [Check(**check) for check in data["checks"]]
    data["series"] = [Series(**series) for series in data["series"]]
    data["tables"] = [(title, columns, rows) for title, columns, rows in data["tables"]]
    data["circumstances"] = Circumstances(**data["circumstances"])
    return Result(**data)


def percentile(values: list[float], percent: float) -> float:
    """Nearest rank; nan for none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(percent / 100 * len(ordered) + 0.5) - 1))]


def slope(x: list[float], y: list[float]) -> float:
    """Of the least-squares line."""
    if len(x) < 2:
        return float("nan")
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    return (
        sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
        if spread
        else float("nan")
    )
