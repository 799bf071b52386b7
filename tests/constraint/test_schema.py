"""What a schema allows is what `jsonschema` accepts; what cannot be enforced is refused, with its place."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import jsonschema
import pytest
from jsonschema.validators import validator_for

from rllm.backends.constraint import limits
from rllm.backends.constraint.compiler import check
from rllm.engine.constraint import Constraint, Kind
from rllm.errors import ConstraintRefused
from tests.constraint.answers import accepts, drawn, of_schema

NUM_DRAWN = 12
DRAFT_4 = "http://json-schema.org/draft-04/schema#"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
NULL, BOOL, TEXT, WHOLE = ({"type": name} for name in ("null", "boolean", "string", "integer"))


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


ENFORCED: dict[str, Any] = {
    "types": {"type": ["integer", "null", "boolean"]},
    "no type": {"minimum": 5, "maxLength": 2, "maxItems": 1, "maxProperties": 1},
    "bounds": {"type": "number", "minimum": -3.25, "exclusiveMaximum": 1000.5},
    "whole bounds": {"type": "integer", "exclusiveMinimum": -7, "maximum": 1234},
    "whole bounds given as fractions": {"type": "integer", "minimum": -2.5, "maximum": 2.5},
    "draft 4 bounds": {"type": "integer", "minimum": 5, "exclusiveMinimum": True, "$schema": DRAFT_4},
    "multiples": {"type": "integer", "multipleOf": 7, "minimum": -100, "maximum": 500},
    "multiples of a fraction": {"type": "number", "multipleOf": 0.25},
    "constants": {"enum": [1, 1.5, "a", None, [1, {"a": 2}], True, 'é"\n\\']},
    "constants that fit": {"enum": ["a", "bb", 3], "minLength": 2},
    "a constant": {"const": {"a": [1, 2.5, {"b": None}]}},
    "lengths": {"type": "string", "minLength": 2, "maxLength": 4},
    "pattern and length": {"type": "string", "pattern": "b", "maxLength": 3},
    "pattern and format": {"type": "string", "pattern": "^[a-z]{2,3}$", "format": "hostname"},
    "properties": {**closed(a=WHOLE, b=TEXT, c=NULL), "required": ["b"]},
    "others": {"type": "object", "properties": {"a": WHOLE}, "additionalProperties": TEXT},
    "names with quotes": {"type": "object", "properties": {'q"u\\é\n': NULL}, "required": ['q"u\\é\n']},
    "required but not listed": {"type": "object", "required": ["x", "y"], "additionalProperties": BOOL},
    "patterns of names": {
        "type": "object",
        "properties": {"abc": {"minimum": 3}, "z": NULL},
        "patternProperties": {"^a": WHOLE, "^b": TEXT},
        "additionalProperties": BOOL,
    },
    "numbers of properties": {"type": "object", "minProperties": 1, "maxProperties": 3},
    "at least one of two": {**closed(a=NULL, b=NULL), "minProperties": 1},
    "at most one of two": {**closed(a=NULL, b=NULL), "maxProperties": 1},
    "a property that may not be": {"type": "object", "properties": {"a": False}, "maxProperties": 2},
    "items": {"type": "array", "items": NULL, "minItems": 2, "maxItems": 4},
    "first items": {"type": "array", "prefixItems": [NULL, BOOL], "items": WHOLE, "minItems": 1},
    "first items in draft 7": {
        "$schema": DRAFT_7,
        "additionalItems": False,
        "anyOf": [{"maxItems": 3}, {"minItems": 1}],
        "items": [NULL, BOOL],
        "type": "array",
    },
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"a": WHOLE}, "required": ["a"]},
            {"properties": {"a": {"minimum": 3}, "b": NULL}, "additionalProperties": False},
        ]
    },
    "any of": {"anyOf": [{**closed(k={"const": "x"}), "required": ["k"]}, WHOLE], "minimum": 3},
    "one of, told apart by a constant": {
        "oneOf": [
            {"type": "object", "properties": {"k": {"const": name}}, "required": ["k"]} for name in "xyz"
        ]
    },
    "one of, told apart by type": {"oneOf": [TEXT, WHOLE, {"type": "array", "items": NULL}]},
    "references": {
        "$defs": {"t/ä": {**closed(v=WHOLE, kids={"type": "array", "items": {"$ref": "#/$defs/t~1%C3%A4"}})}},
        "$ref": "#/$defs/t~1%C3%A4",
    },
    "a reference to the whole": {**closed(next={"$ref": "#"}, value=BOOL)},
    "a reference to a property": closed(a={"type": "string", "maxLength": 2}, b={"$ref": "#/properties/a"}),
    "a reference with more": {"definitions": {"a": TEXT}, "$ref": "#/definitions/a", "maxLength": 3},
    "a reference alone in draft 7": {
        "$schema": DRAFT_7,
        "definitions": {"a": TEXT},
        "items": {"$ref": "#/definitions/a", "maxLength": 1, "not": TEXT},
        "type": "array",
    },
    "a reference by the schema's own address": {
        "$id": "https://example.com/s.json",
        "$defs": {"a": BOOL},
        "$ref": "https://example.com/s.json#/$defs/a",
    },
    "additional before properties": {
        "additionalProperties": False,
        "allOf": [{"minProperties": 1}],
        "type": "object",
        "patternProperties": {"^x": NULL},
    },
    "annotations and unknown keywords": {"title": "t", "description": "d", "nullable": True, **WHOLE},
    "no-ops": {"type": "array", "uniqueItems": False, "items": NULL},
    "a format of numbers": {"type": "integer", "format": "int32"},
    **{
        f"format {name}": {"type": "string", "format": name}
        for name in ("date-time", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
    },
}


@pytest.mark.parametrize("schema", ENFORCED.values(), ids=ENFORCED.keys())
@pytest.mark.parametrize("any_whitespace", [False, True], ids=["tight", "any whitespace"])
def test_whatever_is_drawn_is_valid(schema: Any, any_whitespace: bool) -> None:
    compiled = of_schema(schema, any_whitespace=any_whitespace)
    chosen = validator_for(schema, default=jsonschema.Draft202012Validator)
    validator = chosen(schema, format_checker=chosen.FORMAT_CHECKER)
    random = Random(json.dumps(schema))
    answers = [drawn(compiled, random) for _ in range(NUM_DRAWN)]
    complete = [answer for answer in answers if answer is not None]
    assert complete, "no answer came to an end"
    for answer in complete:
        errors = [error.message for error in validator.iter_errors(json.loads(answer))]
        assert not errors, f"{answer}: {errors}"


VALUES = {
    "an escaped name is no other property": (
        {"type": "object", "properties": {"a": WHOLE}, "additionalProperties": TEXT},
        ['{"a": 1, "b": "x"}'],
        ['{"\\u0061": "x"}', '{"b": 1}'],
    ),
    "the order is the schema's": (
        closed(a=NULL, b=NULL),
        ['{"a": null, "b": null}'],
        ['{"b": null, "a": null}'],
    ),
    "what is combined first comes first": (
        {"allOf": [{"properties": {"a": NULL}}], "properties": {"b": NULL}, "type": "object"},
        ['{"a": null, "b": null}'],
        ['{"b": null, "a": null}'],
    ),
    "whole numbers have no fraction": (
        WHOLE,
        ["0", "-7", "123456789012345678901"],
        ["1.0", "01", "+1", "1e3"],
    ),
    "numbers": ({"type": "number"}, ["0", "-0.5", "1e3", "2E-7"], [".5", "1.", "NaN", "Infinity"]),
    "texts hold any character but control characters": (
        TEXT,
        ['"é😀/\\n\\""'],
        ['"\t"', '"\\u0041"', '"\\x"'],
    ),
    "nothing counts beside a reference in draft 7": (
        {"$schema": DRAFT_7, "$ref": "#/definitions/a", "maxLength": 1, "definitions": {"a": TEXT}},
        ['"abc"'],
        ["1"],
    ),
    "29 February": (
        {"type": "string", "format": "date"},
        ['"2024-02-29"', '"2000-02-29"', '"2023-02-28"', '"0001-12-31"'],
        ['"2023-02-29"', '"1900-02-29"', '"2023-04-31"', '"2023-13-01"', '"2023-1-1"', '"0000-01-01"'],
    ),
    "29 February, with a time": (
        {"type": "string", "format": "date-time"},
        ['"2024-02-29T12:00:00Z"', '"2023-02-28t23:59:60.5+01:00"'],
        [
            '"2023-02-29T12:00:00Z"',
            '"2023-02-28T24:00:00Z"',
            '"2023-02-28T12:00:00"',
            '"2023-02-28 12:00:00Z"',
        ],
    ),
    "a date with a pattern": (
        {"type": "string", "format": "date", "pattern": "^2"},
        ['"2024-02-29"'],
        ['"1024-02-29"', '"2023-02-29"'],
    ),
}


@pytest.mark.parametrize(("schema", "good", "bad"), VALUES.values(), ids=VALUES.keys())
def test_values(schema: Any, good: list[str], bad: list[str]) -> None:
    compiled = of_schema(schema)
    assert [text for text in good if not accepts(compiled, text)] == []
    assert [text for text in bad if accepts(compiled, text)] == []


REFUSED = {
    "not a schema": ([1], "#", "object"),
    "an unknown type": ({"type": "text"}, "#/type", "string"),
    "types of draft 3": ({"properties": {"a": {"type": "any"}}}, "#/properties/a/type", "expected"),
    "required as in draft 3": ({"properties": {"a": {"required": True}}}, "#/properties/a/required", "list"),
    "a schema that is a list": ({"properties": {"a": [NULL]}}, "#/properties/a", "object"),
    "not": (closed(a={"not": TEXT}), "#/properties/a/not", "not"),
    "if": ({"if": {}, "then": {}}, "#/if", "if"),
    "contains": ({"items": {"contains": TEXT}}, "#/items/contains", "contains"),
    "dependentRequired": ({"dependentRequired": {"a": ["b"]}}, "#/dependentRequired", "dependentRequired"),
    "dependentSchemas": ({"dependentSchemas": {"a": {}}}, "#/dependentSchemas", "dependentSchemas"),
    "dependencies": ({"anyOf": [{"dependencies": {}}]}, "#/anyOf/0/dependencies", "dependencies"),
    "propertyNames": ({"propertyNames": {}}, "#/propertyNames", "propertyNames"),
    "unevaluatedProperties": ({"unevaluatedProperties": False}, "#/unevaluatedProperties", "unevaluated"),
    "uniqueItems": ({"type": "array", "uniqueItems": True}, "#/uniqueItems", "uniqueItems"),
    "lookahead": ({"pattern": "(?=a)"}, "#/pattern", "lookahead"),
    "a pattern of names": ({"patternProperties": {"a\\b": {}}}, "#/patternProperties/a\\b", "boundaries"),
    "an anchor inside a pattern": (closed(a={"pattern": "x^a"}), "#/properties/a", "lookaround"),
    "names that two patterns match": (
        {"patternProperties": {"^a": TEXT, "a$": WHOLE}},
        "#",
        "disjoint",
    ),
    "an unknown format": (closed(a={"type": "string", "format": "zip"}), "#/properties/a/format", "zip"),
    "a format of no type": ({"format": "int32"}, "#/format", "int32"),
    "control characters": ({"enum": ["a", "b\x01"]}, "#/enum/1", "control"),
    "half a character": ({"const": "\ud800"}, "#/const", "surrogate"),
    "one of, not told apart": (
        closed(a={"oneOf": [{"required": ["x"]}, {"required": ["y"]}]}),
        "#/properties/a",
        "oneOf",
    ),
    "a reference to the net": ({"$ref": "https://example.com/x.json"}, "#/$ref", "within"),
    "a reference by anchor": ({"$ref": "#name", "$defs": {"a": {"$anchor": "name"}}}, "#/$ref", "within"),
    "a reference to nothing": (closed(a={"$ref": "#/$defs/a"}), "#/properties/a/$ref", "nothing"),
    "a reference below an address of its own": (
        {"$defs": {"a": {"$id": "https://x/", "items": {"$ref": "#/b"}}}, "items": {"$ref": "#/$defs/a"}},
        "#/$defs/a/$id",
        "$id",
    ),
    "a reference to itself": ({"$ref": "#"}, "#", "no finite"),
    "a property that needs itself": (
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        "#",
        "no finite",
    ),
    "items that need themselves": (
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
        "#",
        "no finite",
    ),
    "a reference to itself with more": (
        {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}], "title": "t", "minLength": 1}},
         "$ref": "#/$defs/a"},
        "#/$defs/a/anyOf/0",
        "circular",
    ),
    "nothing matches": ({"type": "string", "enum": [1, 2]}, "#", "atisfiable"),
    "more properties than may be": (
        {"type": "object", "required": ["a", "b"], "maxProperties": 1},
        "#",
        "atisfiable",
    ),
    "numbers beyond what is exact": ({"enum": [0, 2**53 + 1]}, "#/enum/1", "2^53"),
    "an infinite bound": ({"minimum": float("inf")}, "#/minimum", "2^53"),
    "multiples of 0": ({"multipleOf": 0}, "#/multipleOf", "above 0"),
    "many names that may repeat": ({"type": "object", "minProperties": 3}, "#/minProperties", "required"),
    "a count that is none": ({"minLength": -1}, "#/minLength", "whole"),
    "prefixItems before they were known": ({"$schema": DRAFT_7, "prefixItems": []}, "#/prefixItems", "draft"),
    "too long a text": ({"maxLength": 10**9}, "#/maxLength", str(limits.MOST_LENGTH)),
}  # fmt: skip


@pytest.mark.parametrize(("schema", "path", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_enforced_is_refused(schema: Any, path: str, reason: str) -> None:
    with pytest.raises(ConstraintRefused) as refused:
        of_schema(schema)
    assert (refused.value.path, reason in refused.value.reason) == (path, True), str(refused.value)
    with pytest.raises(ConstraintRefused) as unread:
        check(Constraint(Kind.JSON_SCHEMA, json.dumps(schema)))
    assert str(unread.value) == str(refused.value), "without a model the answer is the same"


def test_options_of_llguidance_in_a_schema_change_nothing() -> None:
    with pytest.raises(ConstraintRefused, match="'not'"):
        of_schema({"x-guidance": {"lenient": True}, "not": {}})
    lenient = of_schema({"x-guidance": {"item_separator": ";"}, "type": "array", "items": NULL})
    assert accepts(lenient, "[null, null]")
    assert not accepts(lenient, "[null;null]")
