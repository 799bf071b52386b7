"""Records by name, as `docs/figures.toml` lists them: runs of rllm-bench, and JSON files."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import jmespath
import jmespath.exceptions
import numpy as np

from rllm_bench.figures import cost, metrics, stats
from rllm_bench.figures.keys import Source, UnknownFigure
from rllm_bench.figures.metrics import CellData
from rllm_bench.figures.stats import Array
from rllm_bench.figures.summary import judged
from rllm_bench.records.runs import RunRecord
from rllm_bench.records.store import Store


@dataclass(frozen=True)
class Runs:
    """One or more runs side by side; a figure is taken from the first that has subject and group."""

    folders: Sequence[Path]

    def find(self, query: str) -> Array:
        try:
            subject, group, metric = query.split()
        except ValueError:
            raise UnknownFigure(f"a run's figure is SUBJECT GROUP METRIC, not {query!r}") from None
        for run, cells in self._loaded:
            repeats = [c for c in cells if (c.record.spec.subject, c.record.spec.group) == (subject, group)]
            if repeats:
                return np.asarray([_figure(run, repeats, metric)])
        raise UnknownFigure(f"no cells of {subject} under {group} in {', '.join(map(str, self.folders))}")

    @cached_property
    def _loaded(self) -> list[tuple[RunRecord, list[CellData]]]:
        stores = [Store(folder) for folder in self.folders]
        return [(store.run(), judged(store)) for store in stores]


def _figure(run: RunRecord, repeats: Sequence[CellData], metric: str) -> float:
    """Over the repeats that were measured, by the rule that reports follow."""
    measured = [metrics.summarize(c, run.slos) for c in repeats if c.record.error is None and c.good]
    if not measured:
        raise UnknownFigure(f"{repeats[0].record.spec.id}: nothing was measured")
    if metric in ("usd_per_1k", "usd_per_1m"):
        if run.price_per_hour is None:
            raise UnknownFigure(f"{run.name} knows no price per hour")
        rate = stats.estimate([values["output_tps"] for values in measured], None).value
        return cost.per_1k_tokens(run.price_per_hour, rate) * (1000 if metric == "usd_per_1m" else 1)
    if any(metric not in values for values in measured):
        raise UnknownFigure(f"{repeats[0].record.spec.id} has no {metric}; it has {', '.join(measured[0])}")
    return stats.estimate([values[metric] for values in measured], None).value


@dataclass(frozen=True)
class Json:
    """A JSON record, asked in JMESPath (https://jmespath.org)."""

    path: Path

    def find(self, query: str) -> Array:
        try:
            found = jmespath.search(query, self._content)
        except jmespath.exceptions.JMESPathError as wrong:
            raise UnknownFigure(f"{query!r} is no JMESPath: {wrong}") from wrong
        values = found if isinstance(found, list) else [found]
        if not values or not all(isinstance(value, int | float) for value in values):
            raise UnknownFigure(f"{self.path} has no number at {query!r}")
        return np.asarray(values, dtype=np.float64)

    @cached_property
    def _content(self) -> object:
        return json.loads(self.path.read_bytes())


class Catalog:
    """The sources that a project's pages may name."""

    def __init__(self, root: Path, file: str = "docs/figures.toml") -> None:
        self.root = root
        content = tomllib.loads((root / file).read_text())
        self.pages = [root / page for page in content.get("pages", [])]
        self._entries: dict[str, list[str]] = {
            name: [places] if isinstance(places, str) else places
            for name, places in content.get("sources", {}).items()
        }
        self.source = cache(self._open)

    def _open(self, name: str) -> Source:
        if name not in self._entries:
            known = ", ".join(self._entries)
            raise UnknownFigure(f"no source {name!r} in docs/figures.toml; there are {known}")
        places = [self.root / place for place in self._entries[name]]
        return Json(places[0]) if places[0].suffix == ".json" else Runs(places)
