"""What the dashboard and the alert rules ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tests.monitoring.tools import DOCS

_METRIC = re.compile(r"\brllm_[a-z0-9_]+")
_RECORDED = re.compile(r"\brllm:[a-z0-9_:]+")
_SELECTOR = re.compile(r"\b(rllm_[a-z0-9_]+)\{([^}]*)\}")
_LABEL = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}

OF_PROMETHEUS = {"job": "", "instance": "", "exported_instance": "instance"}
"""Labels that Prometheus sets, and ours where it renames one."""


def alerts_text() -> str:
    """The rules without their comments."""
    lines = (DOCS / "alerts.yml").read_text().splitlines()
    return "\n".join(line.split(" #")[0] for line in lines if not line.startswith("#"))


def alert_names() -> list[str]:
    return re.findall(r"^ +- alert: (\w+)$", alerts_text(), re.MULTILINE)


def panels() -> dict[str, list[str]]:
    """Queries of the dashboard by panel."""
    board = json.loads((DOCS / "dashboard.json").read_text())
    return {
        panel["title"]: [t["expr"] for t in panel["targets"]]
        for panel in board["panels"]
        if "targets" in panel
    }


def variables() -> list[str]:
    board = json.loads((DOCS / "dashboard.json").read_text())
    return [v["query"]["query"] for v in board["templating"]["list"] if v["type"] == "query"]


def everything() -> Iterable[str]:
    yield alerts_text()
    yield from variables()
    for queries in panels().values():
        yield from queries


def metrics_in(texts: Iterable[str]) -> set[str]:
    return {name for text in texts for name in _METRIC.findall(text)}


def recorded_in(texts: Iterable[str]) -> set[str]:
    return {name for text in texts for name in _RECORDED.findall(text)}


def recorded_by_rules() -> set[str]:
    return set(re.findall(r"- record: (\S+)", alerts_text()))


def labels_in(texts: Iterable[str]) -> set[tuple[str, str]]:
    """(metric, one of our labels by which it is selected)."""
    found = set()
    for text in texts:
        for name, selector in _SELECTOR.findall(text):
            ours = {OF_PROMETHEUS.get(label, label) for label in _LABEL.findall(selector)}
            found |= {(name, label) for label in ours if label}
    return found


class Served(NamedTuple):
    """What a page of /metrics has."""

    names: set[str]
    """Of samples that there are or can be."""
    labels: dict[str, set[str]]
    """Of the samples that there are, by name."""


def served(text: str) -> Served:
    names: set[str] = set()
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        names |= {family.name + suffix for suffix in _SUFFIXES.get(family.type, ("",))}
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return Served(names, labels)
