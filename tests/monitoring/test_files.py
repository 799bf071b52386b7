"""Dashboard, rules and runbook agree with each other and, without a server, with our metrics."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.monitoring.expressions import (
    alert_names,
    alerts_text,
    everything,
    metrics_in,
    panels,
    recorded_by_rules,
    recorded_in,
)
from tests.monitoring.tools import DOCS, ROOT, needs_prometheus, promtool


def test_the_dashboard_is_what_its_script_writes() -> None:
    command = [sys.executable, "scripts/monitoring/dashboard.py", "--check"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def test_the_dashboard_can_be_imported() -> None:
    """What Grafana's import insists on: a uid, unique ids, a place for every panel that overlaps no other."""
    board = json.loads((DOCS / "dashboard.json").read_text())
    assert board["uid"]
    assert board["templating"]["list"][0]["type"] == "datasource"
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_the_dashboard_shows_each_area() -> None:
    names = metrics_in(query for queries in panels().values() for query in queries)
    for part in ("requests_total", "time_to_first_token", "inter_token", "queue_time", "decode_batch_size"):
        assert any(part in name for name in names)


def test_recorded_series_that_are_used_are_recorded() -> None:
    assert recorded_in(everything()) == recorded_by_rules()


def test_every_alert_has_an_entry_in_the_runbook_and_names_it() -> None:
    runbook = (ROOT / "RUNBOOK.md").read_text()
    names = alert_names()
    assert len(names) >= 20
    assert re.findall(r'runbook: "RUNBOOK.md, (\w+)"', alerts_text()) == names
    assert [name for name in names if f"**`{name}`**" not in runbook] == []


def test_every_pointer_to_the_runbook_leads_to_an_entry() -> None:
    """An entry begins with its name: as a title, or in bold."""
    sources = "".join(path.read_text() for path in (ROOT / "app").rglob("*.py"))
    pointers = set(re.findall(r"RUNBOOK\.md, '([^']+)'", sources))
    runbook = (ROOT / "RUNBOOK.md").read_text()
    assert len(pointers) >= 4
    assert [name for name in pointers if not re.search(rf"^(##+ |\*\*`?){name}", runbook, re.M)] == []


def test_metrics_that_the_runbook_mentions_exist() -> None:
    from tests.monitoring.test_names import with_gpu

    served = with_gpu().names
    mentioned = metrics_in([(ROOT / "RUNBOOK.md").read_text()])
    families = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in served}
    assert {name for name in mentioned if name not in served | families} == set()


@pytest.mark.parametrize("name", alert_names())
def test_every_alert_is_shown_a_case_in_which_it_fires(name: str) -> None:
    """And, as every test of alerts.test.yml asks for all alerts at once, many in which it does not."""
    assert f'alertname="{name}"' in (DOCS / "alerts.test.yml").read_text()


@needs_prometheus
def test_promtool_finds_nothing_wrong_with_the_rules_and_the_configuration() -> None:
    for command in (("check", "rules", DOCS / "alerts.yml"), ("check", "config", DOCS / "prometheus.yml")):
        status, said = promtool(*command)
        assert status == 0, said
        assert "SUCCESS" in said


@needs_prometheus
def test_the_alerts_fire_when_they_should_and_only_then() -> None:
    status, said = promtool("test", "rules", DOCS / "alerts.test.yml")
    assert status == 0, said
