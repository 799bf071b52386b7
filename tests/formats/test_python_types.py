from __future__ import annotations

from typing import Any

import pytest

from tests.formats.python_types import json_schema


@pytest.mark.parametrize(
    ("python", "json"),
    [
        ({"type": "dict"}, {"type": "object"}),
        ({"type": "float", "description": "x"}, {"type": "number", "description": "x"}),
        ({"type": "tuple", "items": {"type": "float"}}, {"type": "array", "items": {"type": "number"}}),
        ({"type": "Integer"}, {"type": "integer"}),
        ({"type": "any"}, {}),
        ({"type": ["str", "none"]}, {"type": ["string", "null"]}),
        ({"type": "string", "optional": True, "enum": ["dict"]}, {"type": "string", "enum": ["dict"]}),
        ({"type": "dict", "additionalProperties": False}, {"type": "object", "additionalProperties": False}),
    ],
)
def test_types_get_the_names_of_json_schema(python: dict[str, Any], json: dict[str, Any]) -> None:
    assert json_schema(python) == json


def test_properties_may_be_named_like_keywords() -> None:
    schema = {
        "type": "dict",
        "properties": {"type": {"type": "str"}, "items": {"type": "dict", "properties": {}}},
    }
    assert json_schema(schema) == {
        "type": "object",
        "properties": {"type": {"type": "string"}, "items": {"type": "object", "properties": {}}},
    }


def test_a_type_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(ValueError, match="complex"):
        json_schema({"type": "complex"})
