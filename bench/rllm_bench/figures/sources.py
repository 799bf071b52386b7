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

from rllm_bench.capacity.machines import machines
from rllm_bench.capacity.model import forecast
from rllm_bench.figures import cost, metrics, stats
from rllm_bench.figures.keys import Source, UnknownFigure
from rllm_bench.figures.metrics import CellData
from rllm_bench.figures.stats import Array
from rllm_bench.figures.summary import judged
from rllm_bench.records import archive
from rllm_bench.records.runs import RunRecord
from rllm_bench.records.store import Store


@dataclass(frozen=True)
class Runs:
    """One or more runs side by side; a figure is taken from the first that has subject and group."""

    folders: Sequence[Path]

    def find(self, query: str) -> Array:
        """``query``: SUBJECT GROUP METRIC; for ``most_users_GOAL`` the group without its load."""
        try:
            subject, group, metric = query.split()
        except ValueError:
            raise UnknownFigure(f"a run's figure is SUBJECT GROUP METRIC, not {query!r}") from None
        if metric.startswith("most_users_"):
            return np.asarray([self._most_users(subject, group, metric.removeprefix("most_users_"))])
        for run, cells in self._loaded:
            repeats = [c for c in cells if (c.record.spec.subject, c.record.spec.group) == (subject, group)]
            measured = [c for c in repeats if c.record.error is None and c.good]
            if measured:
                # of pairs, one by one: a ratio of two such terms is that of the pairs
                groups = [[cell] for cell in measured] if run.kind == "versus" else [measured]
                return np.asarray([_figure(run, group, metric) for group in groups])
        raise UnknownFigure(
            f"nothing was measured of {subject} under {group} in {', '.join(map(str, self.folders))}"
        )

    def _most_users(self, subject: str, shape: str, goal: str) -> float:
        """The highest number of users up to which every measured number was served in time."""
        specs = [cell.record.spec for _, cells in self._loaded for cell in cells]
        groups = {
            spec.group: spec.load.concurrency or 0
            for spec in specs
            if spec.subject == subject and spec.group.endswith(f"-{shape}")
        }
        most = 0
        for group, users in sorted(groups.items(), key=lambda item: item[1]):
            if float(self.find(f"{subject} {group} attained_{goal}")[0]) < metrics.KEPT:
                break
            most = users
        if not most:
            raise UnknownFigure(f"{subject}: no load of {shape} is served in time ({goal})")
        return most

    @cached_property
    def _loaded(self) -> list[tuple[RunRecord, list[CellData]]]:
        stores = [Store(folder) for folder in self.folders]
        return [(store.run(), judged(store)) for store in stores]


def _figure(run: RunRecord, repeats: Sequence[CellData], metric: str) -> float:
    """Over the repeats, by the rule that reports follow."""
    spec = repeats[0].record.spec
    if metric == "model_gb":
        size = next((known.model_bytes for known in run.subjects if known.name == spec.subject), None)
        if size is None:
            raise UnknownFigure(f"{run.name} does not know the size of {spec.subject}'s file")
        return size / 1e9
    found = [metrics.summarize(cell, run.slos) for cell in repeats]
    if metric in ("usd_per_1k", "usd_per_1m"):
        if run.price_per_hour is None:
            raise UnknownFigure(f"{run.name} knows no price per hour")
        rate = stats.over_repeats([values["output_tps"] for values in found])
        return cost.per_1k_tokens(run.price_per_hour, rate) * (1000 if metric == "usd_per_1m" else 1)
    if any(metric not in values for values in found):
        raise UnknownFigure(f"{spec.id} has no {metric}; it has {', '.join(found[0])}")
    return stats.over_repeats([values[metric] for values in found])


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
        return json.loads(archive.read_bytes(self.path))


class Forecasts:
    """What `rllm-bench capacity` forecasts: MACHINE TYPE USERS PROMPT OUTPUT FIGURE."""

    def find(self, query: str) -> Array:
        try:
            machine, kind, users, prompt, output, figure = query.split()
            speeds = machines()[machine].types[kind].speeds()
            found = forecast(speeds, int(users), int(prompt), int(output))
            return np.asarray([float(getattr(found, figure))])
        except (ValueError, KeyError, AttributeError) as wrong:
            raise UnknownFigure(f"no forecast {query!r}: {wrong}") from wrong


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
        if name == "forecast":
            return Forecasts()
        if name not in self._entries:
            known = ", ".join(self._entries)
            raise UnknownFigure(f"no source {name!r} in docs/figures.toml; there are {known}")
        places = [self.root / place for place in self._entries[name]]
        return Json(places[0]) if places[0].suffix == ".json" else Runs(places)
