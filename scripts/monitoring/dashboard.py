"""Write the Grafana dashboard: docs/monitoring/dashboard.json.

    python scripts/monitoring/dashboard.py            write it
    python scripts/monitoring/dashboard.py --check    fail if the file is not what this writes

It is generated because its panels differ in a title, a unit and a query, and in nothing else: see panels.py.
In Grafana: Dashboards, New, Import; it asks for the Prometheus data source.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from panels import MODEL, ROWS, SERVER, Panel

TARGET = Path(__file__).resolve().parents[2] / "docs/monitoring/dashboard.json"
WIDTH, HEIGHT = 8, 7


def dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append(_header(len(panels) + 1, title, y))
        y += 1
        for index, panel in enumerate(row):
            x = index % 3 * WIDTH
            panels.append(_panel(len(panels) + 1, panel, x, y + index // 3 * HEIGHT))
        y += -(-len(row) // 3) * HEIGHT
    return {
        "uid": "rllm-serve",
        "title": "rllm-serve",
        "description": "Written by scripts/monitoring/dashboard.py.",
        "tags": ["llm", "rllm"],
        "schemaVersion": 38,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "",
        "annotations": {"list": [_alerts()]},
        "templating": {"list": [_datasource(), *_variables()]},
        "panels": panels,
    }


_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def _header(number: int, title: str, y: int) -> dict[str, Any]:
    place = {"x": 0, "y": y, "w": 24, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": _SOURCE,
            "expr": query,
            "legendFormat": legend,
            "range": True,
        }
        for index, (legend, query) in enumerate(panel.queries.items())
    ]
    custom: dict[str, Any] = {
        "lineWidth": 1,
        "fillOpacity": 20 if panel.stacked else 0,
        "showPoints": "never",
    }
    custom["stacking"] = {"mode": "normal" if panel.stacked else "none"}
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "custom": custom}
    if panel.top is not None:
        defaults["max"] = panel.top
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": targets,
    }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
    }


def _variables() -> list[dict[str, Any]]:
    queries = {
        "job": ("Job", "label_values(rllm_build_info, job)"),
        "server": ("Server", 'label_values(rllm_build_info{job=~"$job"}, instance)'),
        "model": ("Model", f"label_values(rllm_slots{{{SERVER}}}, model)"),
        "worker": ("Worker", f"label_values(rllm_slots{{{MODEL}}}, exported_instance)"),
    }
    return [
        {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": query, "refId": name},
            "definition": query,
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
            "sort": 1,
        }
        for name, (label, query) in queries.items()
    ]


def _alerts() -> dict[str, Any]:
    """A mark where an alert of docs/monitoring/alerts.yml fires."""
    return {
        "name": "Alerts",
        "datasource": _SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Rllm.+", alertstate="firing", instance=~"$server"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{exported_instance}} {{model}}",
        "step": "15s",
    }


def main() -> int:
    text = json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text)
        return 0
    if TARGET.exists() and TARGET.read_text() == text:
        return 0
    print(f"{TARGET} is not what scripts/monitoring/dashboard.py writes; run it", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
