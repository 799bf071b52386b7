"""Schemas whose types have the names of Python as JSON Schema: BFCL writes its functions so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TYPES: Mapping[str, dict[str, Any]] = {
    "dict": {"type": "object"},
    "float": {"type": "number"},
    "double": {"type": "number"},
    "long": {"type": "integer"},
    "int": {"type": "integer"},
    "bool": {"type": "boolean"},
    "str": {"type": "string"},
    "char": {"type": "string"},
    "list": {"type": "array"},
    "tuple": {"type": "array"},
    "set": {"type": "array"},
    "none": {"type": "null"},
    "any": {},
    **{
        name: {"type": name} for name in ("string", "integer", "number", "boolean", "array", "object", "null")
    },
}
_SCHEMAS = ("items", "additionalProperties")
"""Keywords whose value is a schema."""
_NOT_IN_JSON_SCHEMA = ("optional",)


def json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """
    Raises:
        ValueError: a type that is neither Python's nor JSON Schema's.
    """
    found: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword == "type":
            found |= _type(value)
        elif keyword == "properties":
            found[keyword] = {name: json_schema(each) for name, each in value.items()}
        elif keyword in _SCHEMAS and isinstance(value, Mapping):
            found[keyword] = json_schema(value)
        elif keyword not in _NOT_IN_JSON_SCHEMA:
            found[keyword] = value
    return found


def _type(name: object) -> dict[str, Any]:
    if isinstance(name, list):
        return {"type": [_type(each)["type"] for each in name]}
    if not isinstance(name, str) or name.lower() not in _TYPES:
        raise ValueError(f"not a type: {name!r}")
    return dict(_TYPES[name.lower()])
