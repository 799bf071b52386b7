"""476 real schemas with 1,569 instances: compiled or refused by name, and each instance judged rightly."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.constraint import page
from tests.constraint.answers import of_schema
from tests.constraint.maskbench import in_some_order, outcome

pytestmark = pytest.mark.model


@pytest.mark.timeout(600)
def test_no_instance_is_judged_wrongly() -> None:
    found = outcome()
    assert (found.num_schemas, found.num_instances) == (476, 1_569)
    assert found.wrong == []
    assert len(found.by_order) <= 1
    assert found.num_compiled + len(found.refused) == found.num_schemas
    assert found.share >= 0.9


@pytest.mark.timeout(600)
def test_every_refusal_names_a_place_and_a_reason() -> None:
    for name, reason in outcome().refused.items():
        assert reason.startswith("#"), name
        assert "supported" in reason, name


def test_orders() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"items": {"const": {"c": 1, "d": 2}}}},
    }
    matcher = of_schema(schema).matcher()
    assert any(state.is_complete for state in in_some_order(matcher, {"b": [{"d": 2, "c": 1}], "a": 1}))
    assert not any(in_some_order(matcher, {"b": [{"d": 2, "c": 2}], "a": 1}))


@pytest.mark.timeout(600)
def test_the_page_is_up_to_date() -> None:
    docs = Path(__file__).parents[2] / "docs" / "structured-output.md"
    assert docs.read_text() == page.page(), "python -m tests.constraint.page > docs/structured-output.md"
